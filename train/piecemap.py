"""The map from teacher to student pieces, and student logits for the teacher's vocabulary.

Source: arXiv 2205.02340, the variant of reduce that maps logits back to the teacher's vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rubert_lite.errors import InputError

_CHUNK = 64  # rows of [N, V] that are worked on together; bounds the temporary memory
_TINY = 1e-300  # a sum of scores below this is further than 690 from the greatest logit


@dataclass(frozen=True, eq=False)
class PieceMap:
    """The student pieces of every mapped teacher piece, rows laid end to end (arXiv 2205.02340)."""

    indices: Tensor  # [total] int64, student ids
    offsets: Tensor  # [rows + 1] int64, where each row begins
    teacher_ids: Tensor  # [rows] int64, the teacher piece of each row
    student_size: int

    def __post_init__(self) -> None:
        """Refuse tensors that do not fit together (InputError)."""
        if len(self.offsets) != len(self.teacher_ids) + 1:
            raise InputError(
                f"piece map: {len(self.offsets)} offsets for {len(self.teacher_ids)} teacher"
                " pieces, expected one more than pieces"
            )

    @classmethod
    def of(cls, splits: Sequence[Sequence[int]], student_size: int) -> "PieceMap":
        """Lay out one list of student ids per teacher id; an empty list means: not mapped."""
        mapped = [i for i, split in enumerate(splits) if len(split)]
        flat = [piece for i in mapped for piece in splits[i]]
        if flat and not 0 <= min(flat) <= max(flat) < student_size:
            raise InputError(
                f"piece map: student ids {min(flat)}..{max(flat)}, expected 0..{student_size - 1}"
            )
        sizes = torch.tensor([0] + [len(splits[i]) for i in mapped], dtype=torch.int64)
        return cls(
            torch.tensor(flat, dtype=torch.int64),
            sizes.cumsum(0),
            torch.tensor(mapped, dtype=torch.int64),
            student_size,
        )

    def to(self, device: torch.device | str) -> "PieceMap":
        """Move the tensors to a device."""
        return PieceMap(
            self.indices.to(device),
            self.offsets.to(device),
            self.teacher_ids.to(device),
            self.student_size,
        )


def _bag(values: Tensor, indices: Tensor, offsets: Tensor) -> Tensor:
    """Sum rows of values [c, V] column by column: [c, V] -> [c, rows], nothing of size `total`."""
    columns = values.T.contiguous()
    return F.embedding_bag(indices, columns, offsets, mode="sum", include_last_offset=True).T


class _ReduceMap(torch.autograd.Function):
    """Exact forward and backward, a chunk of rows at a time; keeps the input and the output."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, piece_map: PieceMap, mode: str) -> Tensor:
        indices, offsets = piece_map.indices, piece_map.offsets
        out = logits.new_empty(len(logits), len(piece_map.teacher_ids))
        for start in range(0, len(logits), _CHUNK):
            rows = slice(start, start + _CHUNK)
            if mode == "sum":
                out[rows] = _bag(logits[rows], indices, offsets)
                continue
            scores, top = _scores(logits[rows])
            out[rows] = _bag(scores, indices, offsets).clamp_(min=_TINY).log_().add_(top)
        ctx.piece_map, ctx.mode = piece_map, mode
        ctx.save_for_backward(logits, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        logits, out = ctx.saved_tensors
        indices, offsets = _transposed(ctx.piece_map)
        grad = torch.empty_like(logits)
        for start in range(0, len(logits), _CHUNK):
            rows = slice(start, start + _CHUNK)
            if ctx.mode == "sum":
                grad[rows] = _bag(grads[0][rows], indices, offsets)
                continue
            scores, top = _scores(logits[rows])
            # d out_v / d z_s = exp(z_s - out_v): one factor for each side of a sparse product.
            weight = (top - out[rows].double()).exp_().mul_(grads[0][rows])
            grad[rows] = _bag(weight, indices, offsets).mul_(scores)
        return grad, None, None


def reduce_map(student_logits: Tensor, piece_map: PieceMap, *, mode: str) -> Tensor:
    """Rebuild a logit for each mapped teacher piece from its pieces: [N, V_s] -> [N, rows].

    "sum" adds the pieces' logits (a product of scores), "logsumexp" adds scores (arXiv 2205.02340,
    reduce-map; its script uses the latter). The gradient is exact; the published one is sampled.
    Logsumexp works in float64: exact for logits up to 690 below the greatest of their row.
    """
    if mode not in ("sum", "logsumexp"):
        raise InputError(f"reduce-map mode {mode!r}: expected sum or logsumexp")
    if student_logits.shape[1] != piece_map.student_size:
        raise InputError(
            f"reduce-map: {student_logits.shape[1]} logits, the map has {piece_map.student_size}"
        )
    logits = student_logits.to(torch.promote_types(student_logits.dtype, torch.float32))
    mapped: Tensor = _ReduceMap.apply(logits, piece_map, mode)  # type: ignore[no-untyped-call]
    return mapped


def _scores(logits: Tensor) -> tuple[Tensor, Tensor]:
    top = logits.max(dim=1, keepdim=True).values.double()
    return (logits.double() - top).exp_(), top


def _transposed(piece_map: PieceMap) -> tuple[Tensor, Tensor]:
    """List for every student piece the rows that contain it, end to end, with offsets."""
    sizes = piece_map.offsets.diff()
    owner = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
    order = piece_map.indices.argsort(stable=True)
    count = torch.bincount(piece_map.indices, minlength=piece_map.student_size)
    return owner[order], F.pad(count.cumsum(0), (1, 0))
