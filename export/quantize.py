"""Symmetric 8-bit quantisation of weights, in numpy."""

import numpy as np
from numpy.typing import NDArray

_LEVELS = 127


def quantize_rows(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return int8 values [rows, n] and a scale for each row [rows, 1]: values = int8 * scale.

    The scale is max|x| / 127; a row of zeros has scale 1.
    """
    peak = np.abs(values).max(axis=1, keepdims=True)
    scale = np.where(peak > 0, peak / _LEVELS, 1).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), scale


def dequantize_rows(values: NDArray[np.int8], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Undo `quantize_rows` up to rounding: at most half a scale away from the original."""
    return values.astype(np.float32) * scale
