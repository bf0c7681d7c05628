"""Symmetric quantisation of weights to 8 and 4 bits, in numpy."""

import numpy as np
from numpy.typing import NDArray

from rubert_lite.errors import InputError

_LEVELS = 127
_LEVELS4 = 7
_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)  # of the largest number that is still told apart
_BLOCK = 32  # numbers that share a scale in 4 bits


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


def block_of(width: int) -> int:
    """Return how many numbers of a row share a scale in 4 bits: a divisor of its width.

    Raises InputError for an odd width: two numbers share a byte.
    """
    if width % 2:
        raise InputError(f"4-bit rows: width {width}, expected an even one")
    return next(size for size in range(_BLOCK, 0, -1) if width % size == 0)


def quantize_blocks(
    values: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Return 4-bit values, two a byte [rows, n / 2], and scales [rows, blocks, 1].

    A byte's low bits are a number of the first half of the row, its high bits the one half a row
    further on; each is the number / scale, rounded, plus 8. The scale is at most max|x| / 7 of a
    block, in float16: the one of a few that loses least. Numbers that are 15 levels of max|x| / 7
    already stay as they are.
    """
    rows, width = values.shape
    blocks = values.reshape(rows, -1, block_of(width))
    peak = np.abs(blocks).max(axis=2, keepdims=True)
    levels = np.zeros_like(blocks)
    scale = np.ones(peak.shape, np.float16)
    least = np.full(peak.shape, np.inf, np.float32)
    for share in _SHARES:
        tried = (peak * share / _LEVELS4).astype(np.float16)
        tried[tried == 0] = 1  # nothing but zeros, or too small for float16
        wide = tried.astype(np.float32)
        found = np.rint(blocks / wide).clip(-_LEVELS4, _LEVELS4)
        error = ((found * wide - blocks) ** 2).sum(axis=2, keepdims=True)
        better = error < least
        levels, scale = np.where(better, found, levels), np.where(better, tried, scale)
        least = np.minimum(error, least)
    codes = (levels + 8).astype(np.uint8).reshape(rows, width)
    high = np.left_shift(codes[:, width // 2 :], 4)
    return codes[:, : width // 2] | high, scale


def dequantize_blocks(packed: NDArray[np.uint8], scale: NDArray[np.float16]) -> NDArray[np.float32]:
    """Undo `quantize_blocks` up to rounding: at most half a scale away from the original."""
    codes = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32) - 8
    blocks = codes.reshape(*scale.shape[:2], -1) * scale.astype(np.float32)
    found: NDArray[np.float32] = blocks.reshape(codes.shape)
    return found
