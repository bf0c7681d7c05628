"""Losses between the vectors of a sentence teacher and those of a student.

N rows are sentences; both sides are [N, D] of one width and need not be normalised. `groups` [N]
names the teacher's sentence of each row: rows of one group are no negatives of each other. Values
are computed in float32 whatever the autocast state.
Sources: translation ranking (arXiv 2007.01852, without the margin; arXiv 2004.09813 for regression
to the teacher's vector of the other language); similarity distributions inside the batch
(arXiv 2006.16362, SEED, with the batch as the queue); prefixes (arXiv 2205.13147, Matryoshka);
the order of grades (CoSENT, which sentence-transformers has as CoSENTLoss).
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def _unit(values: Tensor) -> Tensor:
    return F.normalize(values.to(torch.promote_types(values.dtype, torch.float32)), dim=1)


def _similarities(left: Tensor, right: Tensor) -> Tensor:
    with torch.autocast(device_type=left.device.type, enabled=False):
        return _unit(left) @ _unit(right).T


def ranking(
    targets: Tensor, student: Tensor, groups: Tensor, *, temperature: float = 0.05
) -> Tensor:
    """Return the mean cross-entropy of finding each row's partner in the batch, both ways.

    Scores are cosines over `temperature`.
    """
    scores = _similarities(student, targets) / temperature
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    scores = scores.masked_fill((groups[:, None] == groups[None, :]) & ~own, float("-inf"))
    places = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, places) + F.cross_entropy(scores.T, places)) / 2


def similarity_kl(
    targets: Tensor, student: Tensor, groups: Tensor, *, temperature: float = 0.05
) -> Tensor:
    """Return the mean KL(teacher || student) of each row's similarities to the other rows.

    Similarities are cosines over `temperature`, inside each model: the widths may differ. A row
    without others of another group counts 0.
    """
    same = groups[:, None] == groups[None, :]
    low = torch.finfo(torch.float32).min  # not -inf: a row may have nothing else
    teacher = (_similarities(targets, targets) / temperature).masked_fill(same, low)
    own = (_similarities(student, student) / temperature).masked_fill(same, low)
    log_teacher, log_own = F.log_softmax(teacher, dim=1), F.log_softmax(own, dim=1)
    gaps = (log_teacher.exp() * (log_teacher - log_own)).masked_fill(same, 0.0)
    return gaps.sum() / max(len(gaps), 1)


def grade_order(
    cosines: Tensor, grades: Tensor, tasks: Tensor, *, temperature: float = 0.05
) -> Tensor:
    """Return log(1 + sum of exp((c_j - c_i) / temperature)) over pairs i graded above pairs j.

    `cosines`, `grades` and `tasks` are [B]; only pairs of one task are compared. 0 where all grades
    are equal.
    """
    above = (grades[:, None] > grades[None, :]) & (tasks[:, None] == tasks[None, :])
    gaps = (cosines[None, :] - cosines[:, None]) / temperature
    low = torch.finfo(gaps.dtype).min  # not -inf: a row may have nothing else
    gaps = gaps.masked_fill(~above, low).flatten()
    return torch.cat([gaps.new_zeros(1), gaps]).logsumexp(0)
