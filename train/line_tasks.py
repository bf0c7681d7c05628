"""The stage that gives an encoder a task."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from .answers import Answers
from .batches import Texts
from .checkpoint import write_checkpoint
from .config import FinetuneConfig
from .corpus_text import clean_text
from .distil import distil
from .finetune import Tuning, finetune
from .folders import Line, fingerprint_source
from .heads import Classes, Entities
from .labelled import (
    Example,
    Keys,
    Tagged,
    few,
    read_asked,
    read_labelled,
    read_tagged,
    read_unlabelled,
)
from .line_start import join_models
from .loading import load_masked_lm
from .loop import Schedule
from .provenance import add_corpora, read_training, tell_changed
from .recipe import Recipe
from .shards import build_shards
from .stage import Stage, fields_of, fingerprint_files, fingerprint_stage, run_stage
from .student import freeze


def finetune_head(line: Line) -> None:
    """Run the finetune stage, if the configuration has one."""
    c = line.config.finetune
    if c is None:
        return
    own = line.folder("05-sentence" if line.config.sentence else "04-student")
    source = Path(c.source) if c.source else own
    stage = Stage(
        line.folder(f"06-{c.name}"),
        c.model_dump(),
        {
            "student": fingerprint_source(str(source)) if c.source else fingerprint_stage(own),
            "data": fingerprint_files([*filter(None, (c.train, c.dev, c.unlabelled))], whole=True),
            "soft": fingerprint_source(c.soft),
        },
        defaults=c.defaults(),
    )

    def work(out: Path) -> None:
        keys = Keys(c.text, c.pair, c.label)
        soft = Path(c.soft) if c.soft else None
        # A comparison's rows of gold labels name the same texts, and have no use for them
        unlabelled = read_unlabelled(Path(c.unlabelled), keys) if soft and c.unlabelled else []
        kind = _kind(c, unlabelled)
        tuning = Tuning(**fields_of(c.model_dump(), Tuning))
        scores = finetune(source, kind, tuning=tuning, out=out, soft=soft)
        training = read_training(source)
        more = len(unlabelled)
        texts = len(kind.data.train) - more
        read = [{"name": c.name, "license": c.license, "texts": texts, "use": "labels"}]
        if more:
            about = {"license": c.unlabelled_license, "texts": more, "use": "a teacher's labels"}
            read.append({"name": f"{c.name}: {Path(c.unlabelled).name}", **about})
        add_corpora(training, read)
        if not c.freeze_encoder:
            tell_changed(training)
        training["metrics"] = {**training["metrics"], c.name: scores}
        text = json.dumps(training, ensure_ascii=False, indent=1)
        (out / "training.json").write_text(text + "\n", encoding="utf-8")

    run_stage(stage, work, force=line.force)


def learn_task_words(
    line: Line, task: FinetuneConfig, folder: Path, *, teacher: Path, steps: int
) -> None:
    """Distil the student of a line further on the texts of a task, from a teacher tuned on it.

    GLMD's first task stage (arXiv 2306.06625): the losses are those of the line, no label is read.
    Its teacher there was tuned to fill in the answer as a word; `teacher` here was tuned through a
    linear head, and keeps the masked-LM head that it had before.
    `folder` becomes a checkpoint and a stage.
    """
    c = line.config.distil
    source, vocabulary = line.folder("04-student"), line.folder("02-vocabulary")
    strings = c.alignment == "match-string"
    length = line.config.shards.max_length
    stage = Stage(
        folder,
        {"distil": c.model_dump() | {"steps": steps}, "max_length": length},
        {
            "student": fingerprint_stage(source),
            "teacher": fingerprint_source(str(teacher)),
            "data": fingerprint_files([task.train], whole=True),
        },
        resumable=True,
        defaults={"distil": c.defaults()},
    )

    def work(out: Path) -> None:
        texts, shards = out / "texts", out / "shards"
        for place in (texts, shards):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
        lines = (clean_text(t).replace("\n", " ") for t in _texts(task))
        (texts / "train-000.txt").write_text("\n".join(filter(None, lines)) + "\n", "utf-8")
        build_shards(
            texts,
            shards,
            teacher=vocabulary / "base-tokenizer.json",
            student=vocabulary / "tokenizer.json",
            max_length=length,
            strings=strings,
        )
        student = load_masked_lm(source)
        result = distil(
            join_models(line, student, freeze(load_masked_lm(teacher))),
            Texts.open(shards, "train"),
            None,
            recipe=Recipe(**fields_of(c.model_dump(), Recipe)),
            schedule=Schedule(**fields_of(c.model_dump() | {"steps": steps}, Schedule)),
            out=out,
        )
        training = read_training(source)
        training["metrics"] = {**training["metrics"], f"{task.name} words": result}
        for place in (texts, shards):
            shutil.rmtree(place)
        write_checkpoint(out, student, vocabulary, provenance=training)

    run_stage(stage, work, force=True)


def _texts(task: FinetuneConfig) -> Iterator[str]:
    """Yield the training texts of a task, both of a pair, questions and contexts."""
    for row in _kind(task).data.train:
        values = (getattr(row, f, None) for f in ("text", "pair", "question", "context"))
        yield from (v for v in values if v)


def _kind(
    c: FinetuneConfig, unlabelled: Sequence[tuple[str, str | None]] = ()
) -> Classes | Entities | Answers:
    """Read a task; `unlabelled` texts come after its own, with labels that none may read."""
    train, dev = Path(c.train), Path(c.dev)
    if c.task == "token-classification":
        tagged = few(read_tagged(train, dev), c.limit)
        return Entities(
            replace(tagged, train=[*tagged.train, *(Tagged(t, ()) for t, _ in unlabelled)])
        )
    if c.task == "question-answering":
        return Answers(few(read_asked(train, dev), c.limit))
    data = read_labelled(train, dev, keys=Keys(c.text, c.pair, c.label), names=c.labels)
    data = few(data, c.limit)
    more = (Example(text, pair, -1) for text, pair in unlabelled)
    return Classes(replace(data, train=[*data.train, *more]), c.balance)
