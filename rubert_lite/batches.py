"""Join texts into batches: of equal length for a CPU, padded for a GPU.

Of equal length nothing is padded, so no text changes another.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .engine import Batch
from .pieces import Pieces

BATCH_PIECES = 512  # of a batch: 32 texts of 16 pieces, 1 of 512


def equal_lengths(texts: Sequence[Pieces]) -> Iterator[list[int]]:
    """Yield where the texts of each batch stand, the longest first: no lane is left with them."""
    by_length: dict[int, list[int]] = {}
    for index, text in enumerate(texts):
        by_length.setdefault(len(text.ids), []).append(index)
    for length in sorted(by_length, reverse=True):
        indices = by_length[length]
        size = max(1, BATCH_PIECES // length)
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


def join(texts: Sequence[Pieces], rows: Sequence[int], *, with_types: bool) -> Batch:
    """Make a batch of the texts at `rows`, all of one length."""
    chosen = [texts[i] for i in rows]
    feeds = {"input_ids": np.array([t.ids for t in chosen], dtype=np.int64)}
    if with_types:
        second = np.array([[t.second] for t in chosen])
        length = feeds["input_ids"].shape[1]
        feeds["token_type_ids"] = (np.arange(length) >= second).astype(np.int64)
    return Batch(np.array(rows, dtype=np.int64), feeds)


PADDED_PIECES = 16_384  # of a padded batch
_STEPS = ((64, 8), (512, 32))  # up to a length, padded to a multiple: few shapes, little waste


@dataclass(frozen=True)
class Batching:
    """How a graph takes its texts: by its inputs."""

    max_length: int  # pieces of a row
    with_types: bool  # it has token_type_ids
    padded: bool  # it has lengths: rows may be padded

    @classmethod
    def of(cls, inputs: Sequence[str], *, max_length: int) -> "Batching":
        """Read it off the names of a graph's inputs."""
        return cls(max_length, "token_type_ids" in inputs, "lengths" in inputs)

    def split(self, texts: Sequence[Pieces]) -> Iterator[Batch]:
        """Yield batches of all texts."""
        groups = similar_lengths(texts) if self.padded else equal_lengths(texts)
        return (self.join(texts, rows) for rows in groups)

    def join(self, texts: Sequence[Pieces], rows: Sequence[int]) -> Batch:
        """Make a batch of the texts at `rows`, of one length unless rows may be padded."""
        if self.padded:
            width = max(len(texts[i].ids) for i in rows)
            width = min(padded_length(width), self.max_length)
            return pad(texts, rows, width=width, with_types=self.with_types)
        return join(texts, rows, with_types=self.with_types)


def padded_length(length: int) -> int:
    """Round a length up to one of a few."""
    step = next((step for most, step in _STEPS if length <= most), 64)
    return -(-length // step) * step


def similar_lengths(texts: Sequence[Pieces]) -> Iterator[list[int]]:
    """Yield where the texts of each padded batch stand, the longest first."""
    by_length: dict[int, list[int]] = {}
    for index, text in enumerate(texts):
        by_length.setdefault(padded_length(len(text.ids)), []).append(index)
    for length in sorted(by_length, reverse=True):
        indices = by_length[length]
        size = max(1, PADDED_PIECES // length)
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


def pad(texts: Sequence[Pieces], rows: Sequence[int], *, width: int, with_types: bool) -> Batch:
    """Make a batch of rows padded to `width` pieces, with their `lengths`."""
    chosen = [texts[i] for i in rows]
    lengths = np.array([len(t.ids) for t in chosen], dtype=np.int64)
    ids = np.zeros((len(chosen), width), dtype=np.int64)
    for row, text in enumerate(chosen):
        ids[row, : len(text.ids)] = text.ids
    feeds = {"input_ids": ids, "lengths": lengths}
    if with_types:
        second = np.array([[t.second] for t in chosen])
        feeds["token_type_ids"] = (np.arange(ids.shape[1]) >= second).astype(np.int64)
    return Batch(np.array(rows, dtype=np.int64), feeds)
