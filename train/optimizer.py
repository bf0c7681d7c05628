"""What changes the weights: AdamW, or Muon for the matrices inside the student.

Muon turns the momentum of a matrix into the nearest orthogonal one, so that a step moves all its
directions alike (Jordan et al., 2024, in torch). Scaled to AdamW's root mean square
(arXiv 2502.16982) it takes the same learning rate. Tables of pieces, heads, biases and norms stay
with AdamW.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn


def optimizers_of(
    modules: Mapping[str, nn.Module],
    *,
    kind: Literal["adamw", "muon"],
    learning_rate: float,
    weight_decay: float,
    beta2: float,
    epsilon: float,
) -> list[torch.optim.Optimizer]:
    """Return the optimizers of everything in `modules`; `modules["student"]` may have Muon's."""
    inner = _matrices(modules["student"]) if kind == "muon" else []
    taken = {id(p) for p in inner}
    others = [
        p
        for m in modules.values()
        for p in m.parameters()
        if p.requires_grad and id(p) not in taken
    ]
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [  # matrices alone decay: not biases, not norms
                {"params": [p for p in others if p.dim() > 1], "weight_decay": weight_decay},
                {"params": [p for p in others if p.dim() <= 1], "weight_decay": 0.0},
            ],
            lr=learning_rate,
            betas=(0.9, beta2),
            eps=epsilon,
            fused=True,
        )
    ]
    if inner:
        found.append(
            torch.optim.Muon(
                inner,
                lr=learning_rate,
                weight_decay=weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return found


def _matrices(student: nn.Module) -> list[Tensor]:
    """Return the weights of linear layers that are no table of pieces as well."""
    tables = {id(m.weight) for m in student.modules() if isinstance(m, nn.Embedding)}
    return [
        m.weight
        for m in student.modules()
        if isinstance(m, nn.Linear) and m.weight.requires_grad and id(m.weight) not in tables
    ]
