"""A student behind what a former checkpoint ends with: its axes, and its vectors of pieces.

Export multiplies the mean of the states by the axes; where there are vectors of pieces, it joins
the unit mean and the unit sum of those of a text, and multiplies both. So does a student here, and
is compared with its teacher as users will see it. The axes stay; the vectors of pieces learn.
"""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from rubert_lite.errors import InputError
from rubert_lite.wordpiece import SPECIAL_PIECES, pieces_by_id

from .alignment import split_piece
from .axes import AXES, read_axes
from .lexical import LEXICAL, bags_of, sums, write_rows
from .pooled import Pieces, pooled_lists
from .rows import rows_that_learn
from .tokenizer import Spec


class FormerAxes(nn.Module):
    """Axes, and vectors of pieces whose sum they join to the student's vector."""

    def __init__(self, axes: NDArray[np.float32], rows: NDArray[np.float32] | None) -> None:
        """Make them of `axes` [out, D], or [out, D + width] with `rows` [V, width]."""
        super().__init__()
        self.axes = nn.Linear(axes.shape[1], axes.shape[0], bias=False).requires_grad_(False)
        with torch.no_grad():
            self.axes.weight.copy_(torch.from_numpy(axes))
            self.pieces = None if rows is None else nn.Embedding(*rows.shape)
            if self.pieces is not None:
                self.pieces.weight.copy_(torch.from_numpy(rows))

    def forward(self, pooled: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Return [B, out] of mean-pooled vectors [B, D] and the pieces [B, N] that they are of."""
        if self.pieces is not None:
            beside = (self.pieces(ids) * mask.unsqueeze(-1)).sum(1)
            pooled = torch.cat([F.normalize(pooled, dim=1), F.normalize(beside, dim=1)], dim=1)
        found: Tensor = self.axes(pooled)
        return found

    def write(
        self, out: Path, *, remainder: float, student: nn.Module, texts: list[Pieces]
    ) -> None:
        """Write out/axes.safetensors, with `remainder` more of them, and out/lexical.safetensors.

        The `texts` tell what the axes leave out: see `with_remainder`.
        """
        axes = self.axes.weight.detach().cpu().numpy()
        rows = None
        if self.pieces is not None:
            rows = self.pieces.weight.detach().float().cpu().numpy()
            write_rows(rows, out)
        if remainder:
            said = pooled_lists(student, texts)
            if rows is not None:
                said = np.concatenate([said, sums(rows, bags_of(texts, len(rows)))], axis=1)
            axes = with_remainder(axes, said, remainder)
        save_file({"weight": axes.astype(np.float16)}, out / AXES)


def with_remainder(
    axes: NDArray[np.float32], said: NDArray[np.float32], length: float
) -> NDArray[np.float32]:
    """Put behind axes [out, N] those that they leave out, N - out orthonormal ones, scaled.

    Of the vectors `said` [n, N] of texts they hold `length` times as much as the axes do, in the
    root of the mean square, the first of them the most. Raises InputError where none is left out.
    """
    count, width = axes.shape
    if count >= width:
        raise InputError(
            f"sentence.remainder: the axes are {count} of {width}: they leave nothing out"
        )
    rest = np.linalg.svd(axes.astype(np.float64))[2][count:]
    parts = said @ rest.T
    _, turn = np.linalg.eigh(parts.T @ parts)
    held = [float(np.sqrt(((said @ a.T) ** 2).sum(1).mean())) for a in (axes, rest)]
    behind = turn[:, ::-1].T @ rest * (length * held[0] / held[1])
    found: NDArray[np.float32] = np.concatenate([axes, behind]).astype(np.float32)
    return found


def open_former(folder: Path, own: Spec, width: int) -> FormerAxes:
    """Open the axes of a checkpoint for a student of `width` with the pieces of `own`.

    A piece keeps its vector; one that the checkpoint lacks begins with the sum of those of the
    pieces that it cuts it into, so that the sum over a text stays what it was. Raises InputError
    where there are no axes, or of another width.
    """
    axes = read_axes(folder)
    if not (folder / LEXICAL).is_file():
        _check_width(folder, axes, width)
        return FormerAxes(axes, None)
    rows = load_file(folder / LEXICAL)["weight"].astype(np.float32)
    _check_width(folder, axes, width, beside=rows.shape[1])
    known = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    if len(rows) != len(known):
        raise InputError(
            f"{folder / LEXICAL}: {len(rows)} vectors, expected one for each of the {len(known)}"
            " pieces of tokenizer.json beside it: take both from one checkpoint"
        )
    pieces = pieces_by_id(own)
    found = np.zeros((len(pieces), rows.shape[1]), np.float32)
    for row, piece in enumerate(pieces):
        parts = [known[piece]] if piece in known else split_piece(piece, known) or []
        found[row] = rows[parts].sum(0)
    former = FormerAxes(axes, found)
    assert former.pieces is not None
    # Those of special pieces are 0, and stay: what every text has says nothing of any.
    rows_that_learn(former.pieces, torch.tensor([p not in SPECIAL_PIECES for p in pieces]))
    return former


def _check_width(folder: Path, axes: NDArray[np.float32], width: int, *, beside: int = 0) -> None:
    if axes.shape[1] != width + beside:
        raise InputError(
            f"{folder / AXES}: {list(axes.shape)}, expected {width + beside} columns: take a"
            " checkpoint of the student's width"
        )
