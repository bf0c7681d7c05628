"""What makes a text's vector of the mean of its pieces' states: axes, and vectors of the pieces."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rubert_lite.errors import InputError

from .tensors import Array, checked, load_tensors

AXES, LEXICAL = "axes.safetensors", "lexical.safetensors"  # of a checkpoint
TINY = 1e-12  # floor of a norm or scale that divides


@dataclass(frozen=True)
class Turn:
    """What the mean of the states goes through; without axes it stays as it is.

    axes @ mean, or with vectors of pieces axes @ (unit mean beside unit sum of the text's pieces').
    Training writes both: to sort the dimensions, and so that a vector tells which words a text has.
    What they give may be wider than the states.
    """

    axes: Array | None = None  # [out, hidden], or [out, hidden + width]
    lexical: Array | None = None  # [vocab, width]

    def of(self, means: Array, texts: Sequence[Sequence[int]]) -> Array:
        """Return the vectors [n, out] of texts of pieces, by the means of their states."""
        if self.axes is None:
            return means
        if self.lexical is not None:
            sums = np.stack([self.lexical[list(ids)].sum(0) for ids in texts])
            means = np.concatenate([unit(means), unit(sums)], axis=1)
        turned: Array = means @ self.axes.T
        return turned


def unit(vectors: Array) -> Array:
    """Return row vectors of unit length; zeros stay zeros."""
    found: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), TINY)
    return found


def read_turn(checkpoint: Path, width: int, vocabulary: int) -> Turn:
    """Read axes.safetensors and lexical.safetensors, a `weight` each, as far as they are there.

    Raises InputError for other shapes, and for vectors of pieces without axes.
    """
    axes, lexical = checkpoint / AXES, checkpoint / LEXICAL
    rows = None
    if lexical.is_file():
        found = _only_weight(lexical)
        rows = checked(found, (vocabulary, found.shape[-1]), f"{lexical}: weight")
    if not axes.is_file():
        if rows is not None:
            raise InputError(f"{axes}: no such file: {LEXICAL} beside it is joined by it")
        return Turn()
    beside = 0 if rows is None else rows.shape[1]
    found = _only_weight(axes)
    return Turn(checked(found, (len(found), width + beside), f"{axes}: weight"), rows)


def _only_weight(path: Path) -> NDArray[Any]:
    found = load_tensors(path)
    if set(found) != {"weight"} or found["weight"].ndim != 2:
        raise InputError(f"{path}: has {', '.join(found)}, expected weight, a matrix")
    return found["weight"]
