"""What changes the weights: AdamW, or Muon for the matrices inside the student.

Muon turns the momentum of a matrix into the nearest orthogonal one, so that a step moves all its
directions alike (Jordan et al., 2024, in torch). Scaled to AdamW's root mean square
(arXiv 2502.16982) it takes the same learning rate. Tables of pieces, heads, biases and norms stay
with AdamW.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .precision import multiplies_bfloat16


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
            (torch.optim.Muon if multiplies_bfloat16(inner[0].device) else _Float32Muon)(
                inner,
                lr=learning_rate,
                weight_decay=weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return found


class _Float32Muon(torch.optim.Muon):
    """The same in float32, for CPUs that would emulate the bfloat16 that torch's computes in.

    There a step of the released models' training took seconds of that alone (train/LOG.md).
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                buffer, momentum = state["momentum_buffer"], group["momentum"]
                buffer.lerp_(matrix.grad, 1 - momentum)
                update = matrix.grad.lerp(buffer, momentum) if group["nesterov"] else buffer
                turned = orthogonal(
                    update, group["ns_coefficients"], steps=group["ns_steps"], epsilon=group["eps"]
                )
                rate = group["lr"] * 0.2 * max(matrix.shape) ** 0.5  # match_rms_adamw
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(turned, alpha=-rate)
        return loss


def orthogonal(
    matrix: Tensor, coefficients: tuple[float, float, float], *, steps: int, epsilon: float
) -> Tensor:
    """Bring the singular values of a matrix near 1, by the quintic Newton-Schulz iteration.

    X <- a X + (b A + c A A) X with A = X X^T, from X of Frobenius norm 1 (Jordan et al., 2024).
    """
    a, b, c = coefficients
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x: Tensor = wide / wide.norm().clamp(min=epsilon)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide is matrix else x.T


def _matrices(student: nn.Module) -> list[Tensor]:
    """Return the weights of linear layers that are no table of pieces as well."""
    tables = {id(m.weight) for m in student.modules() if isinstance(m, nn.Embedding)}
    return [
        m.weight
        for m in student.modules()
        if isinstance(m, nn.Linear) and m.weight.requires_grad and id(m.weight) not in tables
    ]
