"""A student behind what a former checkpoint ends with: its axes, and its vectors of pieces.

Export multiplies the mean of the states by the axes; where there are vectors of pieces, it joins
the unit mean and the unit sum of those of a text, and multiplies both. So does a student here, and
is compared with its teacher as users will see it. The axes stay; the vectors of pieces learn.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from rubert_lite.errors import ConfigError, InputError
from rubert_lite.wordpiece import SPECIAL_PIECES, pieces_by_id

from .alignment import split_piece
from .axes import read_axes, read_weight
from .encoders import AXES
from .lexical import LEXICAL, bags_of, sums, write_rows
from .pooled import Pieces, pooled_lists
from .rows import rows_that_learn
from .tokenizer import Spec

logger = logging.getLogger(__name__)


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
    root of the mean square, the first of them the most. There must be some: see `check_fits`.
    """
    count, width = axes.shape
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
    rows = read_weight(folder / LEXICAL)
    _check_width(folder, axes, width, beside=rows.shape[1])
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise InputError(f"{tokenizer}: no such file: {LEXICAL} beside it has its pieces' vectors")
    known = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
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


def check_fits(
    former: FormerAxes, source: str, *, teachers: int, prefixes: Sequence[int], remainder: float
) -> None:
    """Raise ConfigError where the axes of `source` cannot be learnt behind as asked."""
    count, width = former.axes.out_features, former.axes.in_features
    problems = []
    if teachers != count:
        problems.append(
            f"sentence.projection = 'axes': the teachers' vectors are {teachers} wide, expected"
            f" {count} as there are axes: take the release whose axes they are, or another"
            " projection"
        )
    if max(prefixes, default=1) > count:
        problems.append(f"sentence.prefixes = {list(prefixes)}: above the {count} axes of {source}")
    if remainder and count >= width:
        problems.append(
            f"sentence.remainder = {remainder:g}: the axes of {source} are {count} of {width}: they"
            " leave nothing out"
        )
    if problems:
        raise ConfigError(problems)


def tell_what_is_lost(source: Path, *, projection: str, lexical: bool, only_rows: bool) -> None:
    """Tell what a checkpoint ends with and a student that learns on from it will not.

    Where `only_rows` learn, so that other texts keep their vectors, that is a ConfigError.
    """
    if projection == "axes":
        return
    remedy = f"sentence.projection = 'axes' with former_axes = '{source}' keeps them"
    if only_rows and (source / AXES).is_file():
        raise ConfigError(
            [f"sentence.only_rows: {source} ends with axes, without which all change: {remedy}"]
        )
    if (source / LEXICAL).is_file() and not lexical:
        logger.warning("%s: its vectors of pieces are left out: %s", source, remedy)


def _check_width(folder: Path, axes: NDArray[np.float32], width: int, *, beside: int = 0) -> None:
    if axes.shape[1] != width + beside:
        raise InputError(
            f"{folder / AXES}: {list(axes.shape)}, expected {width + beside} columns: take a"
            " checkpoint of the student's width"
        )
