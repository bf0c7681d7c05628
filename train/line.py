"""The straight line: corpus, vocabulary, shards, distil, finetune; each a folder of the run."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rubert_lite.errors import ConfigError
from rubert_lite.wordpiece import SPECIAL_PIECES, bert_tokenizer_spec, pieces_by_id

from .batches import Texts
from .checkpoint import write_checkpoint
from .config import LineConfig, load_config
from .cooccurrence import count_pairs, ppmi_rows
from .corpus import Cleaning, Source, build_corpus, expand
from .distil import distil
from .finetune import Keys, Tuning, finetune, read_labelled
from .initialise import initialise
from .links import link, link_vocabularies
from .loop import Schedule
from .recipe import Pair, Recipe
from .report import plot_run
from .shards import build_shards, iter_shards
from .stage import Stage, fingerprint_files, fingerprint_stage, library_versions, run_stage
from .student import Shape, build, count_parameters, freeze, load_masked_lm, output_rows
from .vocabulary import (
    corpus_texts,
    count_pieces,
    lowercased,
    map_dropped,
    measure_coverage,
    prune,
    read_tokenizer,
    train_wordpiece,
    write_vocabulary,
)

_REPORT_TEXTS = 20_000
# Standard deviation of such rows: large against a step of Adam, so that they are not washed out.
_COOCCURRENCE_SCALE = 0.1


@dataclass(frozen=True)
class Line:
    """A configured run and the folders of its stages."""

    config: LineConfig
    force: bool = False

    def folder(self, name: str) -> Path:
        """Return the folder of a stage."""
        if name == "01-corpus" and self.config.corpus.directory:
            return Path(self.config.corpus.directory)
        return Path(self.config.run) / name

    @property
    def teacher(self) -> str:
        """Directory or hub id of the teacher; empty for pretraining."""
        if self.config.teacher.config:
            return str(self.teacher_line().folder("04-student"))
        return self.config.teacher.path

    def teacher_line(self) -> "Line":
        """Return the line that makes the teacher."""
        return Line(load_config(Path(self.config.teacher.config)), self.force)


def corpus(line: Line) -> None:
    """Run the corpus stage."""
    c = line.config.corpus
    sources = [Source(s.name, tuple(s.files), s.license, s.field) for s in c.sources]
    cleaning = Cleaning(c.min_chars, c.max_chars, c.valid_share, c.max_broken_share, c.buckets)
    held_out = expand(c.exclude, "corpus.exclude")
    inputs = {s.name: fingerprint_files(expand(s.files, s.name)) for s in sources}
    stage = Stage(
        line.folder("01-corpus"),
        c.model_dump(exclude={"directory"}),
        {**inputs, "corpus.exclude": fingerprint_files(held_out)},
    )

    def work(out: Path) -> None:
        build_corpus(sources, out, cleaning=cleaning, exclude=held_out)

    run_stage(stage, work, force=line.force)


def vocabulary(line: Line) -> None:
    """Run the vocabulary stage."""
    v = line.config.vocabulary
    source = v.tokenizer or line.teacher
    stage = Stage(
        line.folder("02-vocabulary"),
        v.model_dump(),
        {"corpus": fingerprint_stage(line.folder("01-corpus")), "teacher": _fingerprint(source)},
    )

    def work(out: Path) -> None:
        texts = line.folder("01-corpus")
        base = read_tokenizer(source) if source else bert_tokenizer_spec(SPECIAL_PIECES)
        counts, chars = count_pieces(base, corpus_texts(texts))
        sizes = [*v.report_sizes, v.size] if v.method == "prune" else []
        pruned = {size: prune(base, counts, size) for size in sizes}
        if v.method == "prune":
            spec, kept = pruned[v.size]
        elif v.method == "map":
            rows = output_rows(load_masked_lm(line.teacher))[1].detach().float().numpy()
            spec, kept = map_dropped(base, counts, v.size, rows)
        elif v.method == "train":
            like = lowercased(base) if v.lowercase else base
            spec = train_wordpiece(
                like, corpus_texts(texts), chars, v.size, min_char_count=v.min_char_count
            )
            known = base["model"]["vocab"]
            kept = [known.get(p, -1) for p in pieces_by_id(spec)]
        else:
            spec, kept = base, list(range(len(base["model"]["vocab"])))
        sample = list(corpus_texts(texts, "valid"))[:_REPORT_TEXTS]
        reference = base if len(base["model"]["vocab"]) > len(SPECIAL_PIECES) else spec
        ladder = [*(p[0] for s, p in pruned.items() if s != v.size), spec, reference]
        coverage = [measure_coverage(reference, s, sample) for s in ladder]
        write_vocabulary(out, spec, method=v.method, kept=kept, coverage=coverage)
        np.save(out / "base-counts.npy", counts)
        (out / "base-tokenizer.json").write_text(json.dumps(reference, ensure_ascii=False))

    run_stage(stage, work, force=line.force)


def _fingerprint(source: str) -> str:
    folder = Path(source)
    if not source or not folder.is_dir():
        return source
    if (folder / "stage.json").is_file():
        return fingerprint_stage(folder)
    return fingerprint_files(str(p) for p in sorted(folder.iterdir()) if p.is_file())


def shards(line: Line) -> None:
    """Run the shards stage."""
    s = line.config.shards
    folders = {
        n: line.folder(f) for n, f in (("corpus", "01-corpus"), ("vocabulary", "02-vocabulary"))
    }
    stage = Stage(
        line.folder("03-shards"),
        s.model_dump(exclude={"processes"})
        | {"strings": line.config.distil.alignment == "match-string"},
        {name: fingerprint_stage(folder) for name, folder in folders.items()},
    )

    def work(out: Path) -> None:
        student = folders["vocabulary"] / "tokenizer.json"
        teacher = folders["vocabulary"] / "base-tokenizer.json" if line.teacher else student
        build_shards(
            folders["corpus"],
            out,
            teacher=teacher,
            student=student,
            max_length=s.max_length,
            processes=s.processes,
            strings=line.config.distil.alignment == "match-string",
        )

    run_stage(stage, work, force=line.force)


def train_student(line: Line) -> None:
    """Run the distillation stage (or pretraining, without a teacher)."""
    c = line.config
    stage = Stage(
        line.folder("04-student"),
        {"student": c.student.model_dump(), "distil": c.distil.model_dump()},
        {
            "shards": fingerprint_stage(line.folder("03-shards")),
            "teacher": _fingerprint(line.teacher),
        },
        resumable=True,
    )

    def work(out: Path) -> None:
        folder = line.folder("02-vocabulary")
        spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        base = json.loads((folder / "base-tokenizer.json").read_text(encoding="utf-8"))
        kept = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))["teacher_ids"]
        settings = c.student.model_dump(exclude={"initial_rows", "initial_layers", "cut"})
        torch.manual_seed(c.distil.seed)
        student = build(Shape(vocab_size=len(kept), **settings))
        links = link(base, spec, kept)
        recipe = Recipe(**_part(c.distil.model_dump(), Recipe))
        schedule = Schedule(**_part(c.distil.model_dump(), Schedule))
        teacher = None
        initial = c.student.initial_rows
        if line.teacher:
            teacher = freeze(load_masked_lm(line.teacher, revision=c.teacher.revision or None))
            initialise(
                student,
                teacher,
                links,
                rows="random" if initial == "cooccurrence" else initial,
                layers=c.student.initial_layers,
                cut=c.student.cut,
            )
        if initial == "cooccurrence":
            _fill_from_cooccurrence(student, line.folder("03-shards"))
        counts = None
        if recipe.mask_exponent:
            counts = _piece_counts(line.folder("03-shards"), len(kept))
        pair = Pair(student, teacher, link_vocabularies(base, spec, kept, links, counts))
        result = distil(
            pair,
            Texts.open(line.folder("03-shards"), "train"),
            Texts.open(line.folder("03-shards"), "valid"),
            recipe=recipe,
            schedule=schedule,
            out=out,
        )
        write_checkpoint(out, student, folder, provenance=_provenance(line, result, student))
        plot_run(out / "metrics.jsonl", out / "loss.png")
        shutil.rmtree(out / "state")

    run_stage(stage, work, force=line.force)


def _fill_from_cooccurrence(student: torch.nn.Module, folder: Path) -> None:
    rows = output_rows(student)[1]
    shards = list(iter_shards(folder, "train"))
    size, width = rows.shape
    pairs = count_pairs((s.student for s in shards), size, total=len(shards))
    with torch.no_grad():
        rows.copy_(ppmi_rows(*pairs, size, width) * _COOCCURRENCE_SCALE)


def _part(values: dict[str, Any], kind: Any) -> dict[str, Any]:
    return {f.name: values[f.name] for f in fields(kind) if f.name in values}


def _piece_counts(folder: Path, size: int) -> torch.Tensor:
    counts = np.zeros(size, dtype=np.int64)
    for shard in iter_shards(folder, "train"):
        counts += np.bincount(shard.student.ids, minlength=size)
    return torch.from_numpy(counts).float()


def _provenance(line: Line, metrics: dict[str, float], student: torch.nn.Module) -> dict[str, Any]:
    reports = json.loads((line.folder("01-corpus") / "corpus.json").read_text(encoding="utf-8"))
    teacher = "none (pretrained as a masked language model)"
    if line.config.teacher.config:
        teacher = f"in-house masked language model of {Path(line.config.teacher.config).name}"
    elif line.teacher:
        teacher = line.teacher if not Path(line.teacher).is_dir() else Path(line.teacher).name
    return {
        "teacher": teacher,
        "license": line.config.license,
        "corpora": [
            {"name": r["name"], "license": r["license"], "texts": r["kept"]} for r in reports
        ],
        "config": line.config.model_dump(include={"vocabulary", "shards", "student", "distil"}),
        "versions": library_versions(),
        "seed": line.config.distil.seed,
        "sentence_stage": False,
        "parameters": count_parameters(student),
        "metrics": metrics,
    }


def finetune_head(line: Line) -> None:
    """Run the finetune stage, if the configuration has one."""
    c = line.config.finetune
    if c is None:
        return
    source = line.folder("04-student")
    stage = Stage(
        line.folder(f"06-{c.name}"),
        c.model_dump(),
        {"student": fingerprint_stage(source), "data": fingerprint_files([c.train, c.dev])},
    )

    def work(out: Path) -> None:
        keys = Keys(c.text, c.pair, c.label)
        data = read_labelled(Path(c.train), Path(c.dev), keys=keys, names=c.labels)
        tuning = Tuning(c.freeze_encoder, c.epochs, c.learning_rate, c.batch_size, c.seed)
        scores = finetune(source, data, tuning=tuning, out=out)
        training = json.loads((out / "training.json").read_text(encoding="utf-8"))
        training["corpora"].append(
            {"name": c.name, "license": c.license, "texts": len(data.train), "use": "labels"}
        )
        training["metrics"] = {**training["metrics"], c.name: scores}
        text = json.dumps(training, ensure_ascii=False, indent=1)
        (out / "training.json").write_text(text + "\n", encoding="utf-8")

    run_stage(stage, work, force=line.force)


STAGES: dict[str, Callable[[Line], None]] = {
    "corpus": corpus,
    "vocabulary": vocabulary,
    "shards": shards,
    "distil": train_student,
    "finetune": finetune_head,
}


def run_line(line: Line, names: Sequence[str]) -> None:
    """Run stages in order; a teacher that another configuration makes comes first."""
    if line.config.teacher.config and any(n != "corpus" for n in names):
        made = line.teacher_line()
        if made.config.teacher.config:
            raise ConfigError(
                [f"{line.config.teacher.config}: a teacher's line has no teacher line"]
            )
        run_line(made, ["corpus", "vocabulary", "shards", "distil"])
    for name in names:
        STAGES[name](line)
