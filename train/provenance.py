"""What is said of a checkpoint: who taught it, on what text, by which settings."""

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from .config import VocabularyConfig
from .e5 import E5, E5_NAME
from .folders import Line, fingerprint_weights
from .sentence_recipe import Sources
from .stage import library_versions
from .student import count_parameters

_UNKNOWN = "unknown"


def provenance(line: Line, metrics: dict[str, float], student: torch.nn.Module) -> dict[str, Any]:
    """Describe a masked language model: what training.json holds."""
    reports = json.loads((line.folder("01-corpus") / "corpus.json").read_text(encoding="utf-8"))
    teacher = "none (pretrained as a masked language model)"
    if line.config.teacher.config:
        teacher = f"in-house masked language model of {Path(line.config.teacher.config).name}"
    elif line.teacher:
        teacher = line.teacher if not Path(line.teacher).is_dir() else Path(line.teacher).name
    return {
        "teacher": teacher,
        "teacher_weights": fingerprint_weights(Path(line.teacher)) if line.teacher else "",
        "lineage": _lineage(line.teacher),
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


def _lineage(model: str) -> list[str]:
    """Name a teacher, what taught it, and so on; [] for none, "unknown" where a record ends."""
    if not model:
        return []
    folder = Path(model)
    if not folder.is_dir():
        return [model, _UNKNOWN]  # what taught it is not on record
    found = read_training(folder)
    before = found.get("lineage", [_UNKNOWN])
    return [folder.name, str(found.get("teacher", _UNKNOWN)), *before]


def teacher_names(sentence: Mapping[str, Any]) -> list[str]:
    """Name the encoders that teach by pairs, of a sentence stage's configuration or its record."""
    first = sentence.get("teacher_name") or Path(sentence["teacher"]).name
    beside = (*sentence.get("teacher_beside", []), *sentence.get("student_beside", []))
    return list(dict.fromkeys([first, *map(_short, beside)]))


def _short(encoder: str) -> str:
    """Name an encoder by its run, where it is the folder of a stage, or by what its package has."""
    if encoder == E5:
        return E5_NAME
    folder = Path(encoder)
    return folder.parent.name if (folder / "stage.json").is_file() else folder.name


def read_training(source: Path) -> dict[str, Any]:
    """Return what made a checkpoint: its training.json, or the provenance of a package.

    A checkpoint of other origin is described by its name. `corpora`, `config` and `metrics` are
    always there.
    """
    found: dict[str, Any] = {"teacher": f"unknown ({source.name})", "license": "unknown"}
    own, package = source / "training.json", source / "manifest.json"
    if own.is_file():
        found = json.loads(own.read_text(encoding="utf-8"))
    elif package.is_file():
        found = json.loads(package.read_text(encoding="utf-8"))["provenance"]
    parts: dict[str, Any] = {"corpora": [], "config": {}, "metrics": {}}
    return {**parts, **found}


def trained_length(line: Line, training: Mapping[str, Any], source: Path) -> int:
    """Return how many positions of a student were trained, once its sentence stage is done.

    Of one that learns on (`sentence.source`), all of which it is not known.
    """
    c = line.config.sentence
    assert c is not None
    lengths = [c.max_length]
    if c.language or not c.source:
        lengths.append(line.config.shards.max_length)
    if c.source:
        parts = [training["config"].get(name) or {} for name in ("shards", "sentence")]
        known = training.get("trained_length") or max(
            (int(p.get("max_length", 0)) for p in parts), default=0
        )
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        lengths.append(known or int(config["max_position_embeddings"]))
    return max(lengths)


def add_corpora(training: dict[str, Any], read: Sequence[Mapping[str, Any]]) -> None:
    """Add corpora to the description of a model; of one that it has read before, the larger count.

    A model that learns on (`sentence.source`) may read the same again, a few texts more or fewer.
    """
    for corpus in read:
        what = {k: v for k, v in corpus.items() if k != "texts"}
        known = (c for c in training["corpora"] if {**c, "texts": 0} == {**what, "texts": 0})
        former = next(known, None)
        if former is None:
            training["corpora"].append(dict(corpus))
        else:
            former["texts"] = max(former.get("texts", 0), corpus["texts"])


def tell_changed(training: dict[str, Any]) -> None:
    """Say of a model that learnt on from a package that those were the weights it began with."""
    if "weights" in training:
        training["began_with"] = training.pop("weights")


def _vocabulary(config: VocabularyConfig) -> dict[str, Any]:
    """Tell how a vocabulary came about: of one taken whole from a stage, what that stage did."""
    told = config.model_dump()
    stage = Path(config.tokenizer) / "stage.json"
    if config.method == "full" and stage.is_file():
        made = json.loads(stage.read_text(encoding="utf-8"))["settings"]
        told |= {name: made[name] for name in told if name in made}
    return told


def add_sentence_stage(
    line: Line,
    training: dict[str, Any],
    metrics: dict[str, float],
    sources: Sources,
    student: torch.nn.Module,
) -> None:
    """Add to the description of a student what its sentence stage was."""
    config = line.config.sentence
    assert config is not None
    text = (line.folder("05-pairs") / "pairs.json").read_text(encoding="utf-8")
    read = [
        {"name": r["name"], "license": r["license"], "texts": r["kept"], "use": "pairs"}
        for r in json.loads(text)
    ]
    for use, source in (("labels", sources.labelled), ("grades", sources.graded)):
        tasks = [t for t in config.tasks if bool(t.pair) == (use == "grades")]
        read += [
            {"name": t.name, "license": t.license, "texts": n, "use": use}
            for t, n in zip(tasks, source.counts if source else (), strict=True)
        ]
    add_corpora(training, read)
    tell_changed(training)
    training["config"]["sentence"] = config.model_dump()
    if config.new_pieces:
        training["config"]["vocabulary"] = _vocabulary(line.config.vocabulary)
        training["parameters"] = count_parameters(student)
    first = (config.teacher, *config.teacher_beside, *config.student_beside)
    second = (config.plain_teacher, *config.plain_beside)
    taught = chain.from_iterable(_lineage(t) for t in (*first, *second))
    former_lineage = training.get("lineage", [_UNKNOWN])
    training["lineage"] = list(dict.fromkeys([*former_lineage, *taught]))
    training["sentence_stage"] = True
    name = f"{' and '.join(teacher_names(config.model_dump()))} (sentence vectors)"
    if config.plain_teacher:
        name += f", {' and '.join(map(_short, second))} (plain text)"
    former = training["teacher"]
    if not former.startswith(name):  # one that learns on may have the same
        training["teacher"] = f"{name}; before that {former}"
    if metrics:  # none where no text is held out
        training["metrics"] = {**training["metrics"], "sentence": metrics}
