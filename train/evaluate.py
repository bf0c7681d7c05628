"""Judge encoders on labelled tasks and retrieval; results are kept cell by cell.

A configuration names systems and tasks. Every (system, task) pair is computed once and written to
results.json at once; a system whose files changed is computed anew.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

import rubert_lite
from rubert_lite.errors import InputError

from .evaluated import EvaluationConfig, RetrievalConfig, questions_of
from .parallel import locked
from .probes import Bitext, cosines, probe, recall_by_length, recall_of, robustness
from .results import (
    changed_results,
    detail_table,
    insert,
    main_table,
    neighbour_table,
    plot_plane,
    read_results,
    recall_table,
)
from .speed import milliseconds
from .systems import System
from .tables import read_rows
from .tasks import Task
from .tfidf import TERMS, probe_terms, recall_beside, recall_terms

logger = logging.getLogger(__name__)

_FIRST = "properties"
_ASKED = "asked"  # cell -> what it answers
_SPEED_TEXTS = 1000


def evaluate(config: EvaluationConfig, *, force: bool = False) -> dict[str, Any]:
    """Fill `out/results.json` and return it: {system: {"fingerprint": ..., cell: {...}}}.

    A system whose files are not there keeps the cells that it has; those whose question has
    changed stay out of the tables. Several evaluations may fill one file at once.
    """
    path = Path(config.out) / "results.json"
    for absent in (c for c in config.systems if c.missing):
        logger.warning("%s: no %s: its cells stay as they are", absent.name, absent.missing)
    work = list(_cells(config))
    bar = tqdm(total=len(work), desc="evaluate", unit="cell", disable=None)
    for system, name, question, cell in work:
        bar.set_postfix_str(f"{system.config.name}: {name}")
        row = read_results(path).get(system.config.name, {})
        anew = name == _FIRST and (force or row.get("fingerprint") != system.fingerprint)
        # Results from before questions were noted count as answers to these.
        known = name in row and row.get(_ASKED, {}).get(name, question) == question
        if anew or force or not known:
            found = _short(cell(system))
            with changed_results(path) as results:
                row = results.setdefault(system.config.name, {})
                # Another process may have begun the row anew, by other files.
                if anew or row.get("fingerprint") != system.fingerprint:
                    row = results[system.config.name] = {"fingerprint": system.fingerprint}
                row.setdefault(_ASKED, {})[name] = question
                row[name] = found
        bar.update()
    bar.close()
    speeds = _speeds(config, read_results(path))
    with changed_results(path) as results:
        for settings in config.systems:
            row = results.setdefault(settings.name, {})
            row |= speeds.get(settings.name, {})
    with locked(path.with_name(f"{path.name}.report")):  # the last one to report knows all rows
        results = read_results(path)
        _report(config, _comparable(config, results))
    return results


def _comparable(config: EvaluationConfig, results: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out cells that answered another question than the one that is asked now.

    Cells without a record stay, and those whose question cannot be told for lack of its files.
    """
    questions = questions_of(config)
    shown = dict(results)
    for name in (c.name for c in config.systems):
        asked = results[name].get(_ASKED, {})
        old = [cell for cell, now in questions.items() if now and asked.get(cell, now) != now]
        if old:
            shown[name] = {k: v for k, v in results[name].items() if k not in old}
            logger.warning(
                "%s: %s: the task's files or settings have changed since: left out of the tables",
                name,
                ", ".join(old),
            )
    return shown


def _speeds(config: EvaluationConfig, results: Mapping[str, Any]) -> dict[str, Any]:
    """Measure one-thread milliseconds a text of every package: in turns, or none if none is new."""
    packages = [c for c in config.systems if c.kind == "package" and not c.missing]
    if not config.retrieval or all("speed" in results[c.name] for c in packages):
        return {}
    texts = read_bitext(config.retrieval[0]).queries[:_SPEED_TEXTS]
    models = {
        c.name: rubert_lite.load(c.path, variant=c.variant or None, lanes=1) for c in packages
    }
    return {name: {"speed": {"ms": ms}} for name, ms in milliseconds(models, texts).items()}


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
    questions = questions_of(config)
    for settings in config.systems:
        system = System(settings)
        if settings.missing:
            continue
        yield system, _FIRST, "", System.properties
        for t in config.tasks:
            yield system, t.name, questions[t.name], partial(_probe, Task(**t.model_dump()))
        for r in config.retrieval:
            yield system, r.name, questions[r.name], partial(_retrieve, r)


def _probe(task: Task, system: System) -> dict[str, float]:
    kind = system.config.kind
    return probe_terms(task, kind) if kind in TERMS else probe(task, system.encode)


def _retrieve(config: RetrievalConfig, system: System) -> dict[str, Any]:
    bitext = read_bitext(config)
    if system.config.kind in TERMS:
        return recall_terms(bitext, system.config.kind)
    queries = system.encode(bitext.queries)
    documents = system.encode(bitext.documents)
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
