"""The straight line: corpus, vocabulary, shards, distil, finetune, evaluate; each a folder of the run."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rubert_lite.errors import ConfigError, InputError
from rubert_lite.wordpiece import SPECIAL_PIECES, bert_tokenizer_spec, check_tokenizer, pieces_by_id

from .alignment import piece_splits, split_piece
from .batches import Texts
from .config import LineConfig, load_config
from .corpus import Cleaning, Source, build_corpus, expand
from .distil import Schedule, distil
from .finetune import Keys, Tuning, finetune, read_labelled
from .initialise import Links, initialise
from .losses import PieceMap
from .objective import Pair, Recipe, Vocabularies
from .report import plot_run
from .shards import build_shards, iter_shards
from .stage import Stage, fingerprint_files, fingerprint_stage, library_versions, run_stage
from .student import Shape, build, count_parameters, freeze, load_masked_lm, output_rows
from .vocabulary import (
    Spec,
    corpus_texts,
    count_pieces,
    map_dropped,
    measure_coverage,
    prune,
    train_wordpiece,
    write_vocabulary,
)

_REPORT_TEXTS = 20_000


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
    stage = Stage(
        line.folder("01-corpus"),
        c.model_dump(exclude={"directory"}),
        {s.name: fingerprint_files(expand(s)) for s in sources},
    )
    run_stage(
        stage, lambda out: _done(build_corpus(sources, out, cleaning=cleaning)), force=line.force
    )


def _done(_: object) -> None:
    """Drop a result that also stands in the stage's files."""


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
            spec = train_wordpiece(
                base, corpus_texts(texts), chars, v.size, min_char_count=v.min_char_count
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


def read_tokenizer(source: str) -> Spec:
    """Read a WordPiece tokenizer from a folder (tokenizer.json or vocab.txt) or by hub id."""
    folder = Path(source)
    if (folder / "tokenizer.json").is_file():
        spec: Spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    elif (folder / "vocab.txt").is_file():
        settings = {}
        if (folder / "tokenizer_config.json").is_file():
            settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        pieces = (folder / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
        spec = bert_tokenizer_spec(pieces, lowercase=bool(settings.get("do_lower_case", False)))
    elif folder.is_dir():
        raise InputError(f"{source}: no tokenizer.json or vocab.txt in this folder")
    else:
        from transformers import AutoTokenizer

        try:
            fast = AutoTokenizer.from_pretrained(source, use_fast=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{source}: no such folder, and not a hub id: {error}") from error
        spec = json.loads(fast.backend_tokenizer.to_str())
    check_tokenizer(spec)
    return spec | {"truncation": None, "padding": None}


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
        if line.teacher:
            teacher = freeze(load_masked_lm(line.teacher, revision=c.teacher.revision or None))
            initialise(
                student,
                teacher,
                links,
                rows=c.student.initial_rows,
                layers=c.student.initial_layers,
                cut=c.student.cut,
            )
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


def _part(values: dict[str, Any], kind: Any) -> dict[str, Any]:
    return {f.name: values[f.name] for f in fields(kind) if f.name in values}


def link(base: Spec, spec: Spec, kept: Sequence[int]) -> Links:
    """Find the student pieces of every teacher piece, and the teacher pieces of every student piece."""
    teacher_pieces, known = pieces_by_id(base), base["model"]["vocab"]
    splits = piece_splits(teacher_pieces, spec["model"]["vocab"], special=SPECIAL_PIECES)
    names: dict[int, str] = {}
    for piece, index in spec["model"]["vocab"].items():
        names.setdefault(index, piece)
    sources = [
        [old] if old >= 0 else (split_piece(names[new], known) or [])
        for new, old in enumerate(kept)
    ]
    return Links(splits, sources)


def link_vocabularies(
    base: Spec, spec: Spec, kept: Sequence[int], links: Links, counts: torch.Tensor | None
) -> Vocabularies:
    """Make the tensors that the losses need of both vocabularies."""
    ids = spec["model"]["vocab"]
    special = torch.zeros(len(kept), dtype=torch.bool)
    special[[ids[p] for p in SPECIAL_PIECES]] = True
    shared = [(old, new) for new, old in enumerate(kept) if old >= 0]
    filled = [list(s) or [ids["[UNK]"]] for s in links.splits]
    return Vocabularies(
        teacher_classes=torch.tensor([old for old, _ in shared], dtype=torch.long),
        student_classes=torch.tensor([new for _, new in shared], dtype=torch.long),
        splits=PieceMap.of(filled, len(kept)),
        mapped=PieceMap.of([list(s) for s in links.splits], len(kept)),
        special=special,
        counts=counts,
        pad_id=ids["[PAD]"],
        mask_id=ids["[MASK]"],
        teacher_mask_id=base["model"]["vocab"]["[MASK]"],
    )


def _piece_counts(folder: Path, size: int) -> torch.Tensor:
    counts = np.zeros(size, dtype=np.int64)
    for shard in iter_shards(folder, "train"):
        counts += np.bincount(shard.student.ids, minlength=size)
    return torch.from_numpy(counts).float()


def write_checkpoint(
    out: Path, student: torch.nn.Module, vocabulary_folder: Path, *, provenance: dict[str, Any]
) -> None:
    """Write a Hugging Face directory of the student, with what made it in training.json."""
    student.save_pretrained(out, safe_serialization=True)  # type: ignore[operator]
    for name in ("tokenizer.json", "vocabulary.json"):
        shutil.copyfile(vocabulary_folder / name, out / name)
    special = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL_PIECES, strict=True))
    names = {f"{k}_token": v for k, v in special.items()}
    length = student.config.max_position_embeddings  # type: ignore[union-attr]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": length,
        "model_input_names": ["input_ids", "attention_mask"],
        **names,
    }
    for name, data in (
        ("tokenizer_config.json", settings),
        ("special_tokens_map.json", names),
        ("training.json", provenance),
    ):
        text = json.dumps(data, ensure_ascii=False, indent=1)
        (out / name).write_text(text + "\n", encoding="utf-8")


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
