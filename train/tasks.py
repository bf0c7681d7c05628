"""Labelled tasks that vectors are judged by: how they are read, and their measures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, roc_auc_score

from rubert_lite.errors import InputError
from rubert_lite.normalize import normalize_text

from .reading import read_records

Vectors = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]
Metric = Literal["accuracy", "weighted_f1", "macro_f1", "auc", "mcc", "spearman"]


@dataclass(frozen=True)
class Task:
    """A labelled set of texts, or of pairs of texts, in two jsonl files."""

    name: str
    train: str  # empty for `spearman`, which is measured without training
    dev: str
    metric: Metric
    text: str = "text"
    pair: str = ""  # key of the second text; empty: single texts
    label: str = "label"
    limit: int = 0  # training records at most, the first ones; 0: all
    smileys: bool = False  # `train` is plain text, its classes are the moods of smileys


@dataclass(frozen=True)
class Records:
    """Texts (columns of one or two) and labels as strings."""

    texts: tuple[list[str], ...]
    labels: list[str]

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.labels)


def read_task(path: str, task: Task, *, limit: int = 0) -> Records:
    """Read a split; InputError for a record that lacks a key."""
    keys = [k for k in (task.text, task.pair) if k]
    columns: tuple[list[str], ...] = tuple([] for _ in keys)
    labels = []
    for place, record in read_records(Path(path)):
        for key in (*keys, task.label):
            if key not in record:
                raise InputError(f"{place}: no {key!r}: the record has {', '.join(record)}")
        for column, key in zip(columns, keys, strict=True):
            if not isinstance(record[key], str):
                kind = type(record[key]).__name__
                raise InputError(f"{place}: {kind} under {key!r}, expected a string")
            column.append(normalize_text(record[key]))
        if not isinstance(record[task.label], str | int | float):
            kind = type(record[task.label]).__name__
            raise InputError(f"{place}: {kind} under {task.label!r}, expected a string or number")
        labels.append(str(record[task.label]))
        if limit and len(labels) == limit:
            break
    if not labels:
        raise InputError(f"{path}: no records: expected a labelled jsonl file")
    return Records(columns, labels)


def features(records: Records, encode: Encode) -> Vectors:
    """Return what a probe sees [n, D]: a vector, or |a - b| and a * b of a pair of unit vectors."""
    vectors = [encode(column) for column in records.texts]
    if len(vectors) == 1:
        return vectors[0]
    a, b = (unit(v) for v in vectors)
    return np.concatenate([np.abs(a - b), a * b], axis=1)


def unit(vectors: Vectors) -> Vectors:
    """Scale rows to length 1; a row of zeros stays."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = vectors / np.maximum(norms, 1e-12)
    return scaled


def measure(
    metric: Metric, labels: Sequence[str], predicted: NDArray[Any], positive: NDArray[Any] | None
) -> float:
    """Score predictions; `positive` is the probability of the last of two sorted labels."""
    if metric == "auc":
        names = sorted(set(labels))
        if len(names) != 2 or positive is None:
            raise InputError(f"metric auc: {len(names)} labels, expected two")
        return float(roc_auc_score([label == names[1] for label in labels], positive))
    if metric == "accuracy":
        return float(accuracy_score(labels, predicted))
    if metric == "mcc":
        return float(matthews_corrcoef(labels, predicted))
    average = {"weighted_f1": "weighted", "macro_f1": "macro"}.get(metric)
    if average is None:
        raise InputError(f"metric {metric!r}: not one of a classifier")
    return float(f1_score(labels, predicted, average=average))
