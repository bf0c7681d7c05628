"""The axes of a student with vectors of pieces beside it: what both say, brought into one vector.

Export joins the unit mean of the states and the unit sum of the pieces' vectors and multiplies by
one matrix; all that is learnt here ends in that matrix and in the table of pieces.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from .batches import Texts
from .cloze import cut, word_beginnings
from .items import Items
from .learnt_axes import AxesLearning, GradedVectors, Twins, learn_map, unit
from .lexical import LexicalLearning, Said, bags_of, joined, learn_rows, spelled, write_rows
from .pooled import Pieces, pooled_lists

_SPANS = 40_000  # cut out of texts, at most
# Where the map of both is learnt: twins at most, and spans for each.
_TWINS, _OF_TWINS = 20_000, 0.15


@dataclass(frozen=True)
class Lexical:
    """The vectors of pieces to learn."""

    learning: LexicalLearning
    pieces: Sequence[str]  # [V]

    def said(self, vectors: NDArray[np.float32], texts: Sequence[Pieces]) -> Said:
        """Put the student's unit vectors [n, D] of texts beside their pieces."""
        return Said(vectors, bags_of(texts, len(self.pieces)))


@dataclass(frozen=True)
class Sample:
    """What the axes are learnt from."""

    texts: Said
    twins: tuple[Said, Said] | None  # two texts that should have one vector
    graded: tuple[Said, Said] | None
    grades: GradedVectors | None  # of those, as the student alone says them


def learn_lexical_axes(
    sample: Sample,
    spans: tuple[Said, Said] | None,
    by: NDArray[np.float32],
    out: Path,
    *,
    lexical: Lexical,
    learning: AxesLearning,
    prefixes: Sequence[int],
    seed: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Write out/lexical.safetensors; return a map [D + width, D], and the sample's texts by it.

    `by` [D, D] is what the student's unit vectors are multiplied by before they are joined.
    """
    size, share = len(by), lexical.learning.share
    by = by / np.sqrt(((sample.texts.vectors @ by) ** 2).sum(1).mean())  # to a length of about 1
    counts = np.asarray(sample.texts.bags.sum(0)).ravel()
    start = spelled(lexical.pieces, counts, lexical.learning.width, seed=seed)
    rows = learn_rows(start, sample.twins, spans, by=by, learning=lexical.learning, seed=seed)
    write_rows(rows, out)

    def both(said: Said) -> NDArray[np.float32]:
        return unit(joined(said, rows, by, share))

    graded = sample.grades
    if graded is not None and sample.graded is not None:
        graded = replace(graded, first=both(sample.graded[0]), second=both(sample.graded[1]))
    few = sample.twins and _chosen(sample.twins, np.arange(min(len(sample.twins[0]), _TWINS)))
    pairs = [pair for pair in (few, _some(spans, few)) if pair is not None]
    twins: Twins | None = None
    if pairs:
        one, other = (np.concatenate([both(pair[side]) for pair in pairs]) for side in (0, 1))
        twins = one, other
    texts = both(sample.texts)
    wanted = replace(learning, width=size)
    found = learn_map(texts, twins, graded, learning=wanted, seed=seed, prefixes=prefixes)
    above = by @ found[:size] * np.sqrt(1 - share), found[size:] * np.sqrt(share)
    return np.concatenate(above).astype(np.float32), unit(texts @ found)


def read_spans(
    student: nn.Module, texts: Texts | Items, lexical: Lexical, *, seed: int
) -> tuple[Said, Said] | None:
    """Cut spans out of plain texts and let the student read them, and what is left.

    None where there is no plain text, or none that is long enough.
    """
    if not isinstance(texts, Texts):
        return None
    spans, rests = cut(texts, _SPANS, begins=word_beginnings(lexical.pieces), seed=seed)
    if not spans:
        return None
    one, other = (lexical.said(pooled_lists(student, side), side) for side in (spans, rests))
    return one, other


def _some(
    spans: tuple[Said, Said] | None, twins: tuple[Said, Said] | None
) -> tuple[Said, Said] | None:
    """Take as many spans as fit to the number of twins, from all lengths."""
    if spans is None or twins is None:
        return spans
    count = min(len(spans[0]), int(len(twins[0]) * _OF_TWINS))
    return _chosen(spans, np.linspace(0, len(spans[0]) - 1, count).astype(np.int64))


def _chosen(pair: tuple[Said, Said], rows: NDArray[np.int64]) -> tuple[Said, Said]:
    one, other = (Said(side.vectors[rows], side.bags[rows]) for side in pair)
    return one, other
