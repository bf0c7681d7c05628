"""What an evaluation is configured to judge on what, and what each of its cells asks."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rubert_lite.errors import ConfigError

from .section import Section, load_section
from .stage import fingerprint_files
from .systems import SystemConfig

# In the row of a system beside its cells; `asked` says what each of them answers.
TAKEN = ("fingerprint", "asked", "properties", "speed")


class TaskConfig(Section):
    """A labelled set: see Task."""

    name: str
    dev: str
    metric: Literal["accuracy", "weighted_f1", "macro_f1", "auc", "mcc", "spearman"]
    train: str = ""
    text: str = "text"
    pair: str = ""
    label: str = "label"
    limit: int = Field(0, ge=0)


class RetrievalConfig(Section):
    """Pairs of texts that should find each other."""

    name: str
    file: str  # tsv with a header, jsonl or parquet
    query: str
    document: str
    only: dict[str, list[str]] = {}  # column -> values
    details: bool = False  # also by length of the query, and with changed queries
    unique: bool = False  # pairs whose document stood there before are left out
    beside: bool = False  # also with TF-IDF of words and of characters added to the cosine


class TableConfig(Section):
    """A table in a Markdown file, between `<!-- place -->` and `<!-- /place -->`."""

    file: str
    place: str
    kind: Literal["scores", "neighbours", "by length", "changed", "recall"]
    systems: list[str] = Field(min_length=1)
    retrieval: str = ""  # of `by length`, `changed` and `recall`
    reference: str = ""  # of `scores`: a system whose mean the others are a share of


class EvaluationConfig(Section):
    """What is judged on what, and where the tables go."""

    out: str  # folder of results.json and plane.png
    plane: dict[str, list[str]] = {}  # lines of systems drawn into out/plane.png
    tables: list[TableConfig] = []
    tasks: list[TaskConfig] = []
    retrieval: list[RetrievalConfig] = []
    systems: list[SystemConfig] = Field(min_length=1)


def load_evaluation(path: Path, overrides: Sequence[str] = ()) -> EvaluationConfig:
    """Read and check a TOML file; see `load_config`."""
    config: EvaluationConfig = load_section(EvaluationConfig, path, overrides)
    names = [s.name for s in config.systems]
    problems = [f"systems: the name {name!r} stands twice" for name in _twice(names)]
    problems += _unclear_cells(config)
    detailed = [r.name for r in config.retrieval if r.details]
    for table in config.tables:
        asked = [*table.systems, *([table.reference] if table.reference else [])]
        unknown = [f"no system {name!r}" for name in asked if name not in names]
        if table.kind in ("by length", "changed") and table.retrieval not in detailed:
            unknown.append(f"retrieval = {table.retrieval!r}: expected one with details = true")
        if table.kind == "recall" and table.retrieval not in {r.name for r in config.retrieval}:
            unknown.append(f"no retrieval {table.retrieval!r}")
        problems += [f"tables.{table.place}: {what}" for what in unknown]
    for line, systems in config.plane.items():
        problems += [f"plane.{line}: no system {name!r}" for name in systems if name not in names]
    if problems:
        raise ConfigError(problems)
    return config


def _twice(names: Sequence[str]) -> list[str]:
    return sorted({n for n in names if names.count(n) > 1})


def _unclear_cells(config: EvaluationConfig) -> list[str]:
    """Tell which tasks and retrievals have no cell of their own, or lack a setting."""
    cells = [*(t.name for t in config.tasks), *(r.name for r in config.retrieval)]
    found = [
        f"tasks and retrieval: the name {name!r} stands twice: expected one for each cell"
        for name in _twice(cells)
    ]
    found += [
        f"tasks and retrieval: the name {name!r} is taken by results.json: choose another"
        for name in TAKEN
        if name in cells
    ]
    for task in config.tasks:
        needed = "pair" if task.metric == "spearman" else "train"
        if not getattr(task, needed):
            found.append(f"tasks.{task.name}: no {needed!r}: metric {task.metric!r} needs it")
    return found


def questions_of(config: EvaluationConfig) -> dict[str, str]:
    """Identify what each cell asks: its settings and the texts and labels of its files.

    With "" where one of the files is not there.
    """
    # As before there were these settings, where they are off: what was answered stays answered.
    late = ("unique", "beside")
    asked: dict[str, tuple[dict[str, Any], list[str]]] = {
        t.name: (t.model_dump(), [f for f in (t.train, t.dev) if f]) for t in config.tasks
    }
    for r in config.retrieval:
        asked[r.name] = r.model_dump(exclude={k for k in late if not getattr(r, k)}), [r.file]
    return {name: _question(settings, files) for name, (settings, files) in asked.items()}


def _question(settings: Mapping[str, Any], files: Sequence[str]) -> str:
    if not all(Path(file).is_file() for file in files):
        return ""
    whole = fingerprint_files(files, whole=True)
    return sha256(json.dumps([settings, whole], sort_keys=True).encode()).hexdigest()[:16]
