"""Judge encoders on labelled tasks and retrieval; results are kept cell by cell.

A configuration names systems and tasks. Every (system, task) pair is computed once and written to
results.json at once; a system whose files changed is computed anew.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from tqdm import tqdm

import rubert_lite
from rubert_lite.errors import ConfigError, InputError

from .probes import (
    Bitext,
    cosines,
    probe,
    recall_by_length,
    recall_of,
    robustness,
)
from .results import (
    detail_table,
    insert,
    main_table,
    neighbour_table,
    plot_plane,
    recall_table,
    write_json,
)
from .section import Section, load_section
from .speed import milliseconds
from .stage import fingerprint_files
from .systems import System, SystemConfig
from .tables import read_rows
from .tasks import Task
from .tfidf import TERMS, probe_terms, recall_beside, recall_terms

logger = logging.getLogger(__name__)

_FIRST = "properties"
_ASKED = "asked"  # cell -> what it answers
_SPEED_TEXTS = 1000


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
    twice = sorted({n for n in names if names.count(n) > 1})
    problems = [f"systems: the name {name!r} stands twice" for name in twice]
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


def evaluate(config: EvaluationConfig, *, force: bool = False) -> dict[str, Any]:
    """Fill `out/results.json` and return it: {system: {"fingerprint": ..., cell: {...}}}.

    A system whose files are not there keeps the cells that it has.
    """
    path = Path(config.out) / "results.json"
    results: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    for absent in (c for c in config.systems if c.missing):
        results.setdefault(absent.name, {})
        logger.warning("%s: no %s: its cells stay as they are", absent.name, absent.missing)
    work = list(_cells(config))
    bar = tqdm(total=len(work), desc="evaluate", unit="cell", disable=None)
    for system, name, question, cell in work:
        bar.set_postfix_str(f"{system.config.name}: {name}")
        kept = results.setdefault(system.config.name, {})
        if name == _FIRST and (force or kept.get("fingerprint") != system.fingerprint):
            kept = results[system.config.name] = {"fingerprint": system.fingerprint}
        asked = kept.setdefault(_ASKED, {})
        # Results from before questions were noted count as answers to these.
        if force or name not in kept or asked.get(name, question) != question:
            kept[name] = _short(cell(system))
            asked[name] = question
            write_json(path, results)
        asked.setdefault(name, question)
        bar.update()
    bar.close()
    _measure_speed(config, results)
    write_json(path, results)
    _report(config, results)
    return results


def _measure_speed(config: EvaluationConfig, results: dict[str, Any]) -> None:
    """Add one-thread milliseconds a text to every package: all in turns, or none if none is new."""
    packages = [c for c in config.systems if c.kind == "package" and not c.missing]
    if not config.retrieval or all("speed" in results[c.name] for c in packages):
        return
    texts = read_bitext(config.retrieval[0]).queries[:_SPEED_TEXTS]
    models = {
        c.name: rubert_lite.load(c.path, variant=c.variant or None, lanes=1) for c in packages
    }
    for name, value in milliseconds(models, texts).items():
        results[name]["speed"] = {"ms": value}


def _report(config: EvaluationConfig, results: Mapping[str, Any]) -> None:
    if config.plane:
        plot_plane(results, config.plane, Path(config.out) / "plane.png")
    for table in config.tables:
        if table.kind == "scores":
            lines = main_table(results, table.systems, table.reference)
        elif table.kind == "neighbours":
            lines = neighbour_table(results, table.systems)
        elif table.kind == "recall":
            lines = recall_table(results, table.systems, table.retrieval)
        else:
            lines = detail_table(results, table.systems, table.retrieval, table.kind)
        insert(Path(table.file), table.place, lines)


def _cells(
    config: EvaluationConfig,
) -> Iterator[tuple[System, str, str, Callable[[System], Mapping[str, Any]]]]:
    """Yield each system with the names of its cells, what they ask, and how it is answered."""
    tasks = [(t, _question(t.model_dump(), t.train, t.dev)) for t in config.tasks]
    # As before there were these settings, where they are off: what was answered stays answered.
    late = ("unique", "beside")
    searches = [
        (r, _question(r.model_dump(exclude={k for k in late if not getattr(r, k)}), r.file))
        for r in config.retrieval
    ]
    for settings in config.systems:
        system = System(settings)
        if settings.missing:
            continue
        yield system, _FIRST, "", System.properties
        for t, question in tasks:
            yield system, t.name, question, partial(_probe, Task(**t.model_dump()))
        for r, question in searches:
            yield system, r.name, question, partial(_retrieve, r)


def _question(settings: Mapping[str, Any], *files: str) -> str:
    """Identify what a cell asks: its settings and the texts and labels of its files."""
    whole = fingerprint_files([f for f in files if f], whole=True)
    return sha256(json.dumps([settings, whole], sort_keys=True).encode()).hexdigest()[:16]


def _probe(task: Task, system: System) -> dict[str, float]:
    kind = system.config.kind
    return probe_terms(task, kind) if kind in TERMS else probe(task, system.encode)


def _retrieve(config: RetrievalConfig, system: System) -> dict[str, Any]:
    bitext = read_bitext(config)
    if system.config.kind in TERMS:
        return recall_terms(bitext, system.config.kind)
    queries = system.encode(bitext.queries)
    documents = system.encode_documents(bitext.documents)
    likeness = cosines(queries, documents)
    found: dict[str, Any] = dict(recall_of(likeness))
    if config.beside:
        found |= recall_beside(bitext, likeness)
    if config.details:
        found["by length"] = recall_by_length(bitext, queries, documents)
        found["changed"] = robustness(bitext, system.encode, documents)
    return found


def read_bitext(config: RetrievalConfig) -> Bitext:
    """Read the pairs of a retrieval task; InputError for a broken line or none left."""
    columns = [config.query, config.document, *config.only]
    queries, documents = [], []
    seen: set[str] = set()
    for row in read_rows(config.file, columns):
        if row.values is None:
            raise InputError(f"{row.place}: {row.problem}")
        values = row.values
        document = values[config.document]
        if config.unique and document in seen:
            continue
        if all(values[c] in kept for c, kept in config.only.items()):
            queries.append(values[config.query])
            documents.append(document)
            seen.add(document)
    if not queries:
        raise InputError(f"{config.file}: no pairs are left: check `only`")
    return Bitext(queries, documents)


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _short(v) for k, v in value.items()}
    return round(value, 5) if isinstance(value, float) else value
