"""Spans cut out of texts, and what is left: pairs for the inverse cloze task (arXiv 1906.00300)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .batches import Texts

Pieces = NDArray[np.int64]

LEAST = 42  # pieces of a text that is cut, its special ones among them
_SPAN = (5, 24)  # pieces, before its last word is made whole
_CUT_OUT = 0.7  # of the spans; the others stay in their texts, too, as words of a question may
_READ = 256  # texts read together


def cut(
    texts: Texts, count: int, *, begins: NDArray[np.bool_], seed: int
) -> tuple[list[Pieces], list[Pieces]]:
    """Return spans of whole words and their texts, `count` at most, all between special pieces.

    `begins` [V] tells which pieces begin a word. Texts of fewer than 42 pieces are left out.
    """
    chance = np.random.default_rng(seed)
    chosen = chance.permutation(np.flatnonzero(texts.lengths >= LEAST))[:count]
    chosen = chosen[np.argsort(texts.lengths[chosen], kind="stable")]  # little padding
    spans, rests = [], []
    for start in range(0, len(chosen), _READ):
        batch = texts.batch(chosen[start : start + _READ])
        for ids, mask in zip(batch.student_ids.numpy(), batch.student_mask.numpy(), strict=True):
            found = _cut(ids[mask], begins, chance)
            if found is not None:
                spans.append(found[0])
                rests.append(found[1])
    return spans, rests


def _cut(
    ids: Pieces, begins: NDArray[np.bool_], chance: np.random.Generator
) -> tuple[Pieces, Pieces] | None:
    first, *_, last = ids
    inside = ids[1:-1]
    words = np.flatnonzero(begins[inside])  # where one begins
    if len(inside) < LEAST - 2 or len(words) < 2:  # the other side of the shards was longer
        return None
    start = chance.choice(words)
    least = start + chance.integers(*_SPAN)
    end = min((w for w in words if w >= least), default=len(inside))
    rest = inside
    if chance.random() < _CUT_OUT:
        rest = np.concatenate([inside[:start], inside[end:]])
    if not len(rest):
        return None
    return _between(first, inside[start:end], last), _between(first, rest, last)


def _between(first: int, pieces: Pieces, last: int) -> Pieces:
    return np.concatenate([[first], pieces, [last]])


def word_beginnings(pieces: Sequence[str]) -> NDArray[np.bool_]:
    """Tell of each WordPiece whether it begins a word."""
    return np.array([not piece.startswith("##") for piece in pieces])
