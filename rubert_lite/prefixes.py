"""Shorter vectors: the first dimensions of a model that was trained to do with them alone."""

import numpy as np
from numpy.typing import NDArray


def truncate(
    rows: NDArray[np.float32], width: int, *, normalize: bool = True
) -> NDArray[np.float32]:
    """Keep the first dimensions; a part of a unit vector is shorter than 1."""
    rows = rows[:, :width]
    if not normalize:
        return rows
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    result: NDArray[np.float32] = rows / np.maximum(lengths, np.float32(1e-12))
    return result
