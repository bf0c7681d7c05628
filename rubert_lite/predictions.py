"""What models say of texts: labels, entities and answers, read off their logits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]

_MOST_ANSWER_PIECES = 64
_BEST = 20  # starts of answers that are looked at, the most probable ones


@dataclass(frozen=True)
class Prediction:
    """The most probable label of a text, and the probability of each label, highest first."""

    label: str
    score: float
    scores: dict[str, float]


@dataclass(frozen=True)
class Entity:
    """A named stretch of a text: `text[start:end]` of the string that was given.

    `score` is the mean probability of the labels of its words.
    """

    label: str
    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True)
class Answer:
    """The most probable answer, `context[start:end]`; `score` is the probability of its ends."""

    text: str
    start: int
    end: int
    score: float


def softmax(logits: Logits) -> Logits:
    """Turn logits into probabilities along the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Logits = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def read_labels(logits: Logits, labels: Sequence[str], *, top_k: int | None) -> list[Prediction]:
    """Turn logits [n, labels] into predictions."""
    found = []
    for row in softmax(logits):
        order = np.argsort(-row, kind="stable")[:top_k]
        scores = {labels[i]: float(row[i]) for i in order}
        label = next(iter(scores))
        found.append(Prediction(label, scores[label], scores))
    return found


def read_entities(
    text: str, words: Sequence[tuple[int, int]], logits: Logits, labels: Sequence[str]
) -> list[Entity]:
    """Join the labels of words, places [start, end) in `text`, into entities.

    `logits` [words, labels]; labels are O, B-X (a word that begins an X) and I-X (one that goes
    on). An I-X after anything but X begins one, too.
    """
    chances = softmax(logits)
    found: list[Entity] = []
    open_kind, members = "", [0]  # the entity that may go on, and its words

    def close() -> None:
        if open_kind:
            start, end = words[members[0]][0], words[members[-1]][1]
            score = float(np.mean([chances[w].max() for w in members]))
            found.append(Entity(open_kind, start, end, text[start:end], score))

    for word, best in enumerate(chances.argmax(axis=1)):
        mark, _, kind = labels[best].partition("-")
        if mark == "I" and kind == open_kind:
            members.append(word)
            continue
        close()
        open_kind, members = (kind, [word]) if mark in ("B", "I") else ("", [])
    close()
    return found


def best_span(logits: Logits, inside: NDArray[np.bool_]) -> tuple[float, int, int]:
    """Return (probability, first, last) of the best span of pieces [L, (start, end)].

    Only pieces `inside` may begin or end it; those outside keep their share of the probability: a
    window without the answer should say so by its [CLS].
    """
    starts, ends = softmax(logits.T)
    starts, ends = np.where(inside, starts, 0), np.where(inside, ends, 0)
    best = (-1.0, 0, 0)
    for first in np.argsort(-starts, kind="stable")[:_BEST]:
        stretch = ends[first : first + _MOST_ANSWER_PIECES]
        last = int(first + stretch.argmax())
        best = max(best, (float(starts[first] * ends[last]), int(first), last))
    return best


def windows(length: int, *, room: int) -> Iterator[tuple[int, int]]:
    """Yield the stretches [start, stop) of at most `room` pieces that cover `length` of them.

    Each shares half of its pieces with the one before.
    """
    start = 0
    while True:
        yield start, min(start + room, length)
        if start + room >= length:
            return
        start += max(room // 2, 1)
