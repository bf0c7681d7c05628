"""Judge encoders on labelled tasks and retrieval; results are kept cell by cell.

A configuration names systems and tasks. Every (system, task) pair is computed once and written to
results.json at once; a system whose files changed is computed anew.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from tokenizers import Tokenizer
from tqdm import tqdm

import rubert_lite
from rubert_lite.errors import ConfigError, InputError

from .baselines import hashed_tfidf, static_encoder, static_rows
from .corpus import expand
from .folders import fingerprint_source
from .pairs import read_lines
from .probes import Bitext, probe, recall, recall_by_length, robustness
from .results import detail_table, insert, main_table, neighbour_table, plot_plane
from .section import Section, load_section
from .stage import fingerprint_files
from .tables import read_rows
from .tasks import Encode, Task
from .vectors import VectorCache, open_encoder

logger = logging.getLogger(__name__)

_FIRST = "properties"
_SPEED_TEXTS, _SPEED_ROUNDS = 1000, 5


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


class SystemConfig(Section):
    """An encoder to judge."""

    name: str
    kind: Literal["package", "encoder", "hashed-tfidf", "static"]
    path: str = ""  # package; directory or hub id of an encoder; tokenizer.json of `static`
    variant: str = ""  # of a package
    truncate_dim: int = Field(0, ge=0)
    document_teacher: str = ""  # sentence encoder that reads the documents, with `rotation`
    rotation: str = ""  # rotation.npy of the sentence stage
    pairs: str = ""  # vectors stage, for `static`
    cache: str = ""  # cached teacher vectors, for `static`
    texts: list[str] = []  # text files, for `hashed-tfidf`
    width: int = Field(256, ge=1)
    budget: int = Field(6_800_000, ge=10_000)  # bytes, for `hashed-tfidf`


class EvaluationConfig(Section):
    """What is judged on what, and where the tables go."""

    out: str  # folder of results.json and plane.png
    readme: str = ""  # Markdown file with the places of the tables, see results.py
    tables: dict[str, list[str]] = {}  # name of a place -> systems; "plane" is drawn
    tasks: list[TaskConfig] = []
    retrieval: list[RetrievalConfig] = []
    systems: list[SystemConfig] = Field(min_length=1)


@dataclass(frozen=True)
class System:
    """A system, opened when it is first needed."""

    config: SystemConfig

    @property
    def fingerprint(self) -> str:
        """Identify the files that the encoder is made of."""
        c = self.config
        parts = [fingerprint_source(c.path) if c.path else "", c.model_dump_json(exclude={"name"})]
        if c.path and Path(c.path).is_file():
            parts.append(fingerprint_files([c.path]))
        return "|".join(parts)

    @cached_property
    def encode(self) -> Encode:
        """From texts to vectors."""
        c = self.config
        if c.kind == "package":
            model = rubert_lite.load(c.path, variant=c.variant or None)
            width = c.truncate_dim or None
            return lambda texts: model.encode(texts, truncate_dim=width)
        if c.kind == "hashed-tfidf":
            texts = chain.from_iterable(read_lines(Path(p)) for p in expand(c.texts, c.name))
            return hashed_tfidf(texts, budget=c.budget, width=c.width)
        if c.kind == "static":
            tokenizer = Tokenizer.from_file(c.path)
            tokenizer.enable_truncation(256)
            rows = static_rows(Path(c.pairs), VectorCache(Path(c.cache)), tokenizer, width=c.width)
            return static_encoder(rows, tokenizer)
        return open_encoder(c.path)

    @cached_property
    def encode_documents(self) -> Encode:
        """The same, or the teacher's vectors brought into the student's space."""
        c = self.config
        if not c.document_teacher:
            return self.encode
        teacher, rotation = open_encoder(c.document_teacher), np.load(c.rotation)
        width = c.truncate_dim or rotation.shape[1]
        return lambda texts: teacher(texts) @ rotation[:, :width]

    def properties(self) -> dict[str, float]:
        """Megabytes (10^6) on disk of the files that encode, and the width of the vectors."""
        c = self.config
        found: dict[str, float] = {}
        if c.kind == "package":
            model = rubert_lite.load(c.path, variant=c.variant or None)
            manifest = model.package.manifest
            graph = manifest.variants[c.variant or manifest.default_variant]
            files = (graph, "tokenizer.json")
            found["mb"] = sum((Path(model.package.path) / f).stat().st_size for f in files) / 1e6
            found["width"] = c.truncate_dim or model.dim
        return found


def load_evaluation(path: Path, overrides: Sequence[str] = ()) -> EvaluationConfig:
    """Read and check a TOML file; see `load_config`."""
    config: EvaluationConfig = load_section(EvaluationConfig, path, overrides)
    names = [s.name for s in config.systems]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigError([f"systems: the name {twice[0]!r} stands twice"])
    return config


def evaluate(config: EvaluationConfig, *, force: bool = False) -> dict[str, Any]:
    """Fill `out/results.json` and return it: {system: {"fingerprint": ..., cell: {...}}}."""
    path = Path(config.out) / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    work = list(_cells(config))
    bar = tqdm(total=len(work), desc="evaluate", unit="cell", disable=None)
    for system, name, cell in work:
        bar.set_postfix_str(f"{system.config.name}: {name}")
        kept = results.setdefault(system.config.name, {})
        if name == _FIRST and (force or kept.get("fingerprint") != system.fingerprint):
            kept = results[system.config.name] = {"fingerprint": system.fingerprint}
        if name not in kept:
            kept[name] = _short(cell(system))
            _write(path, results)
        bar.update()
    bar.close()
    _measure_speed(config, results)
    _write(path, results)
    _report(config, results)
    return results


def _measure_speed(config: EvaluationConfig, results: dict[str, Any]) -> None:
    """Add one-thread milliseconds a text to every package: all in turns, or none if none is new."""
    packages = [c for c in config.systems if c.kind == "package"]
    if not config.retrieval or all("speed" in results[c.name] for c in packages):
        return
    texts = read_bitext(config.retrieval[0]).queries[:_SPEED_TEXTS]
    models = {
        c.name: rubert_lite.load(c.path, variant=c.variant or None, lanes=1) for c in packages
    }
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in tqdm(range(_SPEED_ROUNDS), desc="speed", unit="round", disable=None):
        for name, model in models.items():
            started = time.perf_counter()
            model.encode(texts)
            times[name].append(1000 * (time.perf_counter() - started) / len(texts))
    for name, values in times.items():
        results[name]["speed"] = {"ms": round(float(np.median(values)), 4)}


def _report(config: EvaluationConfig, results: Mapping[str, Any]) -> None:
    writers: dict[str, Callable[[Sequence[str]], list[str]]] = {
        "results": lambda names: main_table(results, names),
        "ladder": lambda names: main_table(results, names),
        "shapes": lambda names: main_table(results, names),
        "neighbours": lambda names: neighbour_table(results, names),
    }
    for r in config.retrieval:
        for kind in ("by length", "changed") if r.details else ():
            writers[f"{r.name} {kind}"] = partial(_details, results, r.name, kind)
    for name, systems in config.tables.items():
        if name == "plane":
            plot_plane(results, systems, Path(config.out) / "plane.png")
            continue
        if name not in writers:
            raise ConfigError([f"tables: {name!r}: expected plane, {', '.join(writers)}"])
        insert(Path(config.readme), name, writers[name](systems))


def _details(results: Mapping[str, Any], cell: str, kind: str, systems: Sequence[str]) -> list[str]:
    return detail_table(results, systems, cell, kind)


def _write(path: Path, results: Mapping[str, Any]) -> None:
    partial = path.with_name(f".{path.name}")
    text = json.dumps(results, ensure_ascii=False, indent=1)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.rename(path)


def _cells(
    config: EvaluationConfig,
) -> Iterator[tuple[System, str, Callable[[System], Mapping[str, Any]]]]:
    for settings in config.systems:
        system = System(settings)
        yield system, _FIRST, System.properties
        for t in config.tasks:
            yield system, t.name, partial(_probe, Task(**t.model_dump()))
        for r in config.retrieval:
            yield system, r.name, partial(_retrieve, r)


def _probe(task: Task, system: System) -> dict[str, float]:
    return probe(task, system.encode)


def _retrieve(config: RetrievalConfig, system: System) -> dict[str, Any]:
    bitext = read_bitext(config)
    queries = system.encode(bitext.queries)
    documents = system.encode_documents(bitext.documents)
    found: dict[str, Any] = dict(recall(queries, documents))
    if config.details:
        found["by length"] = recall_by_length(bitext, queries, documents)
        found["changed"] = robustness(bitext, system.encode, documents)
    return found


def read_bitext(config: RetrievalConfig) -> Bitext:
    """Read the pairs of a retrieval task; InputError for a broken line or none left."""
    columns = [config.query, config.document, *config.only]
    queries, documents = [], []
    for row in read_rows(config.file, columns):
        if row.values is None:
            raise InputError(f"{row.place}: {row.problem}")
        values = row.values
        if all(values[c] in kept for c, kept in config.only.items()):
            queries.append(values[config.query])
            documents.append(values[config.document])
    if not queries:
        raise InputError(f"{config.file}: no pairs are left: check `only`")
    return Bitext(queries, documents)


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _short(v) for k, v in value.items()}
    return round(value, 5) if isinstance(value, float) else value
