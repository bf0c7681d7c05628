"""What vectors know: linear probe, nearest neighbours, similarity, retrieval, robustness."""

import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rubert_lite.errors import InputError

from .noise import add_typos
from .tasks import Encode, Records, Task, Vectors, features, measure, read_task, unit

_STRENGTHS = (0.01, 0.1, 1.0)  # inverse regularisation, chosen on a tenth of the training set
_NEIGHBOURS = 3
_LENGTHS = ((0, 30), (30, 60), (60, 120), (120, 10_000))  # characters


def probe(task: Task, encode: Encode) -> dict[str, float]:
    """Return {"linear", "knn"} of a classification, or {"spearman"} of the cosine of pairs.

    Raises InputError where cosines or grades are not finite, or all the same: they have no order.
    """
    dev = read_task(task.dev, task)
    if task.metric == "spearman":
        a, b = (unit(encode(column)) for column in dev.texts)
        likeness, grades = (a * b).sum(1), np.asarray([float(label) for label in dev.labels])
        _check_order(f"task {task.name!r}: the cosines of the pairs of {task.dev}", likeness)
        _check_order(f"task {task.name!r}: the grades of {task.dev}", grades)
        return {"spearman": float(spearmanr(likeness, grades).statistic)}
    train = read_task(task.train, task, limit=task.limit)
    x, x_dev = features(train, encode), features(dev, encode)
    return {
        "linear": _linear(task, train, x, dev, x_dev),
        "knn": _neighbours(task, train, x, dev, x_dev),
    }


def _check_order(what: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise InputError(f"{what} are not all finite: expected numbers: is the encoder broken?")
    if np.ptp(values) == 0:
        raise InputError(
            f"{what} are all {values[0]:g}: expected several: such an encoder or file cannot be"
            " judged by order"
        )


def choose_strength(
    task: Task,
    strengths: Sequence[float],
    x: Any,
    labels: np.ndarray,
    fit: Callable[[float, Any, np.ndarray], object],
) -> float:
    """Return the strength that does best on a tenth of the training set.

    The middle one where that tenth lacks a class. Raises InputError where all labels are one.
    """
    _, counts = np.unique(labels, return_counts=True)
    if len(counts) == 1:
        raise InputError(f"task {task.name!r}: all training labels are {str(labels[0])!r}")
    middle = strengths[len(strengths) // 2]
    if counts.min() < 2 or len(labels) < 10 * len(counts):  # no tenth has a text of each
        return middle
    fitted, held, y_fitted, y_held = train_test_split(
        x, labels, test_size=0.1, random_state=0, stratify=labels
    )
    if len(np.unique(y_held)) < len(counts):  # of a rare class it gets none
        return middle
    scored = [(score(task, fit(c, fitted, y_fitted), held, y_held), c) for c in strengths]
    return max(scored)[1]


def _linear(task: Task, train: Records, x: Vectors, dev: Records, x_dev: Vectors) -> float:
    labels = np.asarray(train.labels)
    best = choose_strength(task, _STRENGTHS, x, labels, _fit)
    return score(task, _fit(best, x, labels), x_dev, np.asarray(dev.labels))


def _fit(strength: float, x: Vectors, y: np.ndarray) -> object:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


def score(task: Task, model: object, x: Vectors | Sequence[str], y: np.ndarray) -> float:
    """Return what a task's metric says of a fitted classifier's answers to `x`."""
    assert hasattr(model, "predict") and hasattr(model, "predict_proba")
    positive = model.predict_proba(x)[:, -1] if task.metric == "auc" else None
    return measure(task.metric, [str(v) for v in y], model.predict(x), positive)


def _neighbours(task: Task, train: Records, x: Vectors, dev: Records, x_dev: Vectors) -> float:
    model = KNeighborsClassifier(_NEIGHBOURS, metric="cosine", algorithm="brute")
    model.fit(unit(x), np.asarray(train.labels))
    return score(task, model, unit(x_dev), np.asarray(dev.labels))


@dataclass(frozen=True)
class Bitext:
    """Queries and the texts they should find: the i-th of one belongs to the i-th of the other."""

    queries: Sequence[str]
    documents: Sequence[str]


def recall(queries: Vectors, documents: Vectors) -> dict[str, float]:
    """Return recall@1 and @10 of the own document by cosine, both [n, D].

    Ties count against: an encoder that says the same of all texts finds nothing.
    """
    return recall_of(cosines(queries, documents))


def cosines(queries: Vectors, documents: Vectors) -> Vectors:
    """Return the cosine of every query with every document [queries, documents]."""
    found: Vectors = unit(queries) @ unit(documents).T
    if not np.isfinite(found).all():  # comparisons with NaN would call it the best of all
        raise InputError("vectors that are not finite: nothing can be said of such an encoder")
    return found


def recall_of(scores: Vectors) -> dict[str, float]:
    """Return recall@1 and @10 of the own document by any scores [n, n]; ties count against."""
    ranks = _ranks(scores)
    return {"recall@1": float((ranks < 1).mean()), "recall@10": float((ranks < 10).mean())}


def _ranks(scores: Vectors) -> np.ndarray:
    """Count the other documents that are at least as near as the own one."""
    own = np.take_along_axis(scores, np.arange(len(scores))[:, None], axis=1)
    ranks: np.ndarray = (scores >= own).sum(1) - 1
    return ranks


def recall_by_length(
    bitext: Bitext, queries: Vectors, documents: Vectors
) -> dict[str, dict[str, float]]:
    """Return recall@1 among all documents, and the number of queries, by length of the query."""
    hits = _ranks(cosines(queries, documents)) < 1
    lengths = np.asarray([len(t) for t in bitext.queries])
    found = {}
    for low, high in _LENGTHS:
        chosen = (lengths >= low) & (lengths < high)
        if chosen.any():
            name = f"{low}-{high - 1}" if high < _LENGTHS[-1][1] else f"{low}+"
            found[name] = {"recall@1": float(hits[chosen].mean()), "queries": int(chosen.sum())}
    return found


def perturbations() -> Mapping[str, Callable[[str], str]]:
    """Name the changes that keep the meaning of a text."""
    return {
        "е for ё": lambda t: t.replace("ё", "е").replace("Ё", "Е"),
        "upper case": str.upper,
        "lower case": str.lower,
        "typos": lambda t: add_typos(t, random.Random(t), share=0.15),
        "stress marks": _stress,
        "no punctuation": lambda t: "".join(c for c in t if c.isalnum() or c.isspace()),
    }


def _stress(text: str) -> str:
    """Mark the first vowel of every second word: where is guessed, the sign is real."""
    words = text.split(" ")
    for i in range(0, len(words), 2):
        for place, letter in enumerate(words[i]):
            if letter in "аеиоуыэюяАЕИОУЫЭЮЯ":
                words[i] = words[i][: place + 1] + "\u0301" + words[i][place + 1 :]
                break
    return " ".join(words)


def robustness(bitext: Bitext, encode: Encode, documents: Vectors) -> dict[str, dict[str, float]]:
    """Return, for each change of the queries, the mean cosine with the unchanged, and recall@1."""
    plain = unit(encode(bitext.queries))
    found = {}
    for name, change in perturbations().items():
        changed = [change(t) for t in bitext.queries]
        vectors = unit(encode(changed))
        touched = np.asarray([a != b for a, b in zip(changed, bitext.queries, strict=True)])
        cosines = (plain * vectors).sum(1)
        found[name] = {
            "cosine": float(cosines[touched].mean()) if touched.any() else 1.0,
            "changed": float(touched.mean()),
            "recall@1": recall(vectors, documents)["recall@1"],
        }
    return found
