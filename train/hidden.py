"""Losses between hidden states, and which teacher layers a student layer is compared with.

States are numbered as transformers returns them: 0 the output of the embeddings, k that of layer k.
Sources: arXiv 2205.02340 (squared error, contrastive), DistilRuBERT and DistilBERT (cosine).
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rubert_lite.errors import InputError

Strategy = Literal["all", "blocks", "last", "skip"]


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _project(student: Tensor, projector: Tensor | None) -> Tensor:
    return _wide(student if projector is None else F.linear(student, projector.to(student.dtype)))


def hidden_mse(teacher: Tensor, student: Tensor, *, projector: Tensor | None = None) -> Tensor:
    """Return the squared differences summed over features, averaged over N (arXiv 2205.02340).

    `projector` [Dt, Ds], the weight of a Linear, takes student rows [N, Ds] to the teacher's width.
    Published as the *sum* over features: the value grows with the hidden size. N = 0 gives 0.
    """
    gap = _wide(teacher) - _project(student, projector)
    return gap.square().sum() / max(len(gap), 1)


def hidden_cosine(teacher: Tensor, student: Tensor, *, projector: Tensor | None = None) -> Tensor:
    """Return the mean of 1 - cos over N rows (DistilBERT's loss, target +1); N = 0 gives 0."""
    cosine = F.cosine_similarity(_wide(teacher), _project(student, projector), dim=1)
    return (1 - cosine).sum() / max(len(cosine), 1)


def contrastive(
    teacher: Tensor,
    student: Tensor,
    *,
    negatives: int,
    generator: torch.Generator,
    temperature: float = 1.0,
) -> Tensor:
    """Return InfoNCE over cosines: a teacher row against the student row of its own position.

    Both [N, D]. The others are `negatives` student rows, drawn without repeats; -1, or more than
    there are, takes all. Published with 64 and no temperature (arXiv 2205.02340, roles "student";
    swap the arguments for "teacher"). N = 0 gives 0.
    """
    n = len(teacher)
    # bfloat16 keeps three digits of a cosine, too few to rank neighbours: no autocast here.
    with torch.autocast(device_type=teacher.device.type, enabled=False):
        scores = F.normalize(_wide(teacher), dim=1) @ F.normalize(_wide(student), dim=1).T
    scores = scores / temperature
    positive = scores.diagonal()
    if 0 <= negatives < n - 1:
        keys = torch.rand(n, n, device=generator.device, generator=generator)
        others = keys.fill_diagonal_(-1.0).topk(negatives, dim=1).indices.to(scores.device)
        scores = torch.cat([positive.unsqueeze(1), scores.gather(1, others)], dim=1)
    return (torch.logsumexp(scores, dim=1) - positive).sum() / max(n, 1)


def average_layers(states: Sequence[Tensor], blocks: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the mean of the states of each block: one tensor of a state's shape per block."""
    means = []
    for block in blocks:
        total = states[block[0]]
        for index in block[1:]:
            total = total + states[index]  # a stack would hold a second copy of the block
        means.append(total / len(block) if len(block) > 1 else total)
    return means


def layer_blocks(n_teacher: int, n_student: int, strategy: Strategy) -> list[list[int]]:
    """List, pair by pair, the teacher states to average; `student_blocks` lists the student's side.

    "all": one pair, the mean of all states with the embeddings (arXiv 2205.02340, 30K student).
    "blocks": student layer k and the k-th of equal blocks of teacher layers, no embeddings;
    for 12 and 6 the states 2k-1 and 2k (DistilRuBERT-base). "last": student states 0..n and the
    teacher's last n + 1. "skip": student state k and the teacher state at the same relative depth,
    embeddings with embeddings. Raises InputError when the student has no layer or too many.
    """
    if not 1 <= n_student <= n_teacher:
        raise InputError(f"student layers: {n_student}, expected 1..{n_teacher} (teacher's layers)")
    depths = [math.floor(k * n_teacher / n_student + 0.5) for k in range(n_student + 1)]
    if strategy == "all":
        return [list(range(n_teacher + 1))]
    if strategy == "blocks":
        return [list(range(a + 1, b + 1)) for a, b in zip(depths, depths[1:], strict=False)]
    if strategy == "last":
        return [[n_teacher - n_student + k] for k in range(n_student + 1)]
    if strategy == "skip":
        return [[depth] for depth in depths]
    raise InputError(f"layer strategy {strategy!r}: expected all, blocks, last or skip")


def student_blocks(n_student: int, strategy: Strategy) -> list[list[int]]:
    """List the student states that stand against the blocks of `layer_blocks`, pair by pair."""
    if strategy == "all":
        return [list(range(n_student + 1))]
    first = 1 if strategy == "blocks" else 0
    return [[k] for k in range(first, n_student + 1)]
