"""Join texts of equal length: nothing is padded, so no text changes another."""

from collections.abc import Iterator, Sequence

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
