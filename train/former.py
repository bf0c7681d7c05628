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
from safetensors.numpy import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from rubert_lite.errors import InputError
from rubert_lite.wordpiece import SPECIAL_PIECES, pieces_by_id

from .alignment import split_piece
from .axes import read_axes
from .lexical import LEXICAL, write_rows
from .rows import rows_that_learn
from .tokenizer import Spec


class FormerAxes(nn.Module):
    """Axes, and vectors of pieces whose sum they join to the student's vector."""

    def __init__(self, axes: NDArray[np.float32], rows: NDArray[np.float32] | None) -> None:
        """Make them of `axes` [D, D], or [D, D + width] with `rows` [V, width]."""
        super().__init__()
        self.axes = nn.Linear(axes.shape[1], axes.shape[0], bias=False).requires_grad_(False)
        with torch.no_grad():
            self.axes.weight.copy_(torch.from_numpy(axes))
            self.pieces = None if rows is None else nn.Embedding(*rows.shape)
            if self.pieces is not None:
                self.pieces.weight.copy_(torch.from_numpy(rows))

    def forward(self, pooled: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Return [B, D] of mean-pooled vectors [B, D] and the pieces [B, N] that they are of."""
        if self.pieces is not None:
            sums = (self.pieces(ids) * mask.unsqueeze(-1)).sum(1)
            pooled = torch.cat([F.normalize(pooled, dim=1), F.normalize(sums, dim=1)], dim=1)
        found: Tensor = self.axes(pooled)
        return found

    def write(self, out: Path) -> None:
        """Write out/lexical.safetensors, if there are vectors of pieces."""
        if self.pieces is not None:
            write_rows(self.pieces.weight.detach().float().cpu().numpy(), out)


def open_former(folder: Path, own: Spec, width: int) -> FormerAxes:
    """Open the axes of a checkpoint for a student of `width` with the pieces of `own`.

    A piece keeps its vector; one that the checkpoint lacks begins with the sum of those of the
    pieces that it cuts it into, so that the sum over a text stays what it was. Raises InputError
    where there are no axes, or of another width.
    """
    if not (folder / LEXICAL).is_file():
        return FormerAxes(read_axes(folder, width), None)
    rows = load_file(folder / LEXICAL)["weight"].astype(np.float32)
    axes = read_axes(folder, width, beside=rows.shape[1])
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
