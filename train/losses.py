"""Losses between a teacher and a student of different vocabularies: pure functions of tensors.

Words: N rows are positions that both models have, K classes are pieces of both vocabularies. Logits
are cast to float32 (float64 stays) whatever the autocast state. Nothing here holds parameters.
Sources: arXiv 2205.02340 (match, reduce, masked positions), arXiv 2306.06625 (word prediction).
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .piecemap import PieceMap as PieceMap
from .piecemap import reduce_map as reduce_map

_CHUNK = 64  # rows of [N, V] that are worked on together; bounds the temporary memory


def _wide(values: Tensor) -> Tensor:
    """Cast to float32 at least: bfloat16 logits lose the digits that a KL consists of."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def kl(
    teacher_logits: Tensor,
    student_logits: Tensor,
    *,
    temperature: float = 1.0,
    tail: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Return T^2/N * sum over N rows of KL(teacher || student), both [N, K] on the same classes.

    `tail` = (teacher [N], student [N]): logsumexp(z / T) of the logits outside the K classes, at
    this temperature; it becomes one more class, so the teacher's mass outside is not discarded.
    Without it both softmaxes are renormalised over the K classes, as published (arXiv 2205.02340,
    section on match). N = 0 gives 0 with a graph.
    """
    teacher = _wide(teacher_logits) / temperature
    student = _wide(student_logits) / temperature
    if tail is not None:
        teacher = torch.cat([teacher, _wide(tail[0]).unsqueeze(1)], dim=1)
        student = torch.cat([student, _wide(tail[1]).unsqueeze(1)], dim=1)
    log_teacher = F.log_softmax(teacher, dim=1)
    log_student = F.log_softmax(student, dim=1)
    mass = log_teacher.exp()
    # A class without teacher mass gives 0, also where the student's logit is -inf (an empty tail).
    gap = (log_teacher - log_student).masked_fill(mass == 0, 0.0)
    return (mass * gap).sum() * (temperature**2 / max(len(mass), 1))


def word_kl(
    teacher_logits: Tensor,
    student_logits: Tensor,
    mask: Tensor,
    *,
    temperature: float = 15.0,
    count_padding: bool = False,
) -> Tensor:
    """Return the KL over real positions of [B, L, V] logits (arXiv 2306.06625, word prediction).

    `mask` [B, L] is true at real tokens. The published mean divides by all B * L positions
    (`count_padding`), so that a text weighs less beside longer ones; the default counts real ones.
    """
    real = mask.bool()
    rows = kl(teacher_logits[real], student_logits[real], temperature=temperature)
    if not count_padding:
        return rows
    return rows * (real.sum() / max(real.numel(), 1))


def soft_cross_entropy(
    teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0
) -> Tensor:
    """Return -T^2/N * sum of p_teacher * log p_student, both [N, K] (arXiv 2306.06625, stage b)."""
    target = F.softmax(_wide(teacher_logits) / temperature, dim=1)
    log_student = F.log_softmax(_wide(student_logits) / temperature, dim=1)
    return -(target * log_student).sum() * (temperature**2 / max(len(target), 1))


class _Tail(torch.autograd.Function):
    """Logsumexp of the columns `others`; keeps the logits (they exist anyway), not a copy."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, others: Tensor, temperature: float) -> Tensor:
        parts = [
            torch.logsumexp(_wide(rows.index_select(1, others)) / temperature, dim=1)
            for rows in torch.split(logits, _CHUNK)
        ]
        tail = torch.cat(parts)
        ctx.save_for_backward(logits, others, tail)
        ctx.temperature = temperature
        return tail

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        logits, others, tail = ctx.saved_tensors
        grad = torch.zeros_like(logits)
        for start in range(0, len(logits), _CHUNK):
            rows = slice(start, start + _CHUNK)
            share = _wide(logits[rows].index_select(1, others)) / ctx.temperature
            share = (share - tail[rows, None]).exp_() * (grads[0][rows, None] / ctx.temperature)
            grad[rows].index_copy_(1, others, share.to(grad.dtype))
        return grad, None, None


def tail_logits(logits: Tensor, ids: Tensor, temperature: float = 1.0) -> Tensor:
    """Return logsumexp(z / T) over the columns of [N, V] that are not in `ids`, [N]; -inf if none.

    No copy of the other columns outlives a chunk of rows, neither here nor for the gradient.
    """
    outside = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
    outside[ids] = False
    others = outside.nonzero().squeeze(1)
    if not len(others) or not len(logits):
        return _wide(logits).new_full((len(logits),), -math.inf)
    tail: Tensor = _Tail.apply(logits, others, temperature)  # type: ignore[no-untyped-call]
    return tail


def shared_logits(
    logits: Tensor, ids: Tensor, *, temperature: float = 1.0, tail: bool
) -> tuple[Tensor, Tensor | None]:
    """Select the columns `ids` [K] of [N, V] logits; with `tail` also `tail_logits` of the others.

    The selected logits are not divided by T (`kl` does that), the tail is.
    """
    rest = tail_logits(logits, ids, temperature) if tail else None
    return logits.index_select(1, ids), rest


def project_to_classes(
    hidden: Tensor, weight: Tensor, bias: Tensor, ids: Tensor | None = None
) -> Tensor:
    """Return logits [N, K] of the classes `ids` only; [N, V] is never made.

    `weight` [V, D] and `bias` [V]; without `ids` they are rows gathered before.
    """
    if ids is None:
        return F.linear(hidden, weight, bias)
    return F.linear(hidden, weight.index_select(0, ids), bias.index_select(0, ids))


def group_sum(values: Tensor, groups: Tensor, n_groups: int, *, mean: bool = False) -> Tensor:
    """Sum the rows of every group: [..., D], one group a row -> [n_groups, D] (arXiv 2205.02340).

    `groups` has as many entries as `values` has rows; a negative one (padding) adds exactly 0 to
    anything. `mean` divides by the true size of the group; the published code divides by the padded
    size, so that a token's vector depends on its neighbours in the batch. Empty groups give 0.
    """
    rows = _wide(values.reshape(-1, values.shape[-1]))
    # Padding goes to one row past the end: no boolean selection, hence no wait for the device.
    target = groups.reshape(-1).to(torch.int64)
    target = torch.where(target < 0, n_groups, target)
    total = rows.new_zeros(n_groups + 1, rows.shape[1]).index_add(0, target, rows)[:n_groups]
    if not mean:
        return total
    size = torch.bincount(target, minlength=n_groups + 1)[:n_groups].clamp(min=1)
    return total / size.unsqueeze(1)


def masked_lm(student_logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of [M, V] against labels [M], -100 skipped; M = 0 gives 0."""
    total = F.cross_entropy(_wide(student_logits), labels, reduction="sum")
    return total / labels.ne(-100).sum().clamp(min=1)
