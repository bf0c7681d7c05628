"""What search and classification do without an encoder: TF-IDF of words, or of characters."""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from .probes import Bitext, choose_strength, recall_of, score
from .tasks import Task, Vectors, read_task

TERMS: dict[str, dict[str, Any]] = {
    "words": {},
    "characters": {"analyzer": "char_wb", "ngram_range": (3, 5)},  # inside words
}
# Of TF-IDF beside a cosine, of .5, 1 and 2 the best for DaNetQA's questions.
BESIDE = {"words": 1.0, "characters": 2.0}
_STRENGTHS = (1.0, 4.0, 16.0)  # inverse regularisation, chosen on a tenth of the training set


def probe_terms(task: Task, kind: str) -> dict[str, float]:
    """Return {"linear"} of logistic regression over the terms of a text; {} for pairs of texts.

    No encoder: what the terms of the training set tell, each with a column of its own.
    """
    if task.pair:
        return {}
    train, dev = read_task(task.train, task, limit=task.limit), read_task(task.dev, task)
    texts, labels = train.texts[0], np.asarray(train.labels)
    best = choose_strength(task, _STRENGTHS, texts, labels, partial(_fit, kind))
    model = _fit(kind, best, texts, labels)
    return {"linear": score(task, model, dev.texts[0], np.asarray(dev.labels))}


def term_scores(bitext: Bitext, kind: str) -> Vectors:
    """Return how like each query each document is, in TF-IDF of the documents' terms."""
    terms = TfidfVectorizer(sublinear_tf=True, dtype=np.float32, **TERMS[kind])
    documents = terms.fit_transform(bitext.documents)
    found: Vectors = (terms.transform(bitext.queries) @ documents.T).toarray()
    return found


def recall_terms(bitext: Bitext, kind: str) -> dict[str, float]:
    """Return recall@1 and @10 of plain search."""
    return recall_of(term_scores(bitext, kind))


def recall_beside(bitext: Bitext, cosines: Vectors) -> dict[str, dict[str, float]]:
    """Return recall@1 and @10 of cosines [queries, documents] and TF-IDF added, by kind of term."""
    return {
        f"beside {kind}": recall_of(cosines + weight * term_scores(bitext, kind))
        for kind, weight in BESIDE.items()
    }


def _fit(kind: str, strength: float, texts: Sequence[str], y: np.ndarray) -> object:
    terms = TfidfVectorizer(min_df=2, sublinear_tf=True, **TERMS[kind])
    model = make_pipeline(terms, LogisticRegression(C=strength, max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(texts, y)
