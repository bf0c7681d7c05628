"""Losses between the hidden states of both models: where pieces match, or over whole words."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .batches import Batch
from .hidden import average_layers, contrastive, hidden_cosine, hidden_mse, layer_blocks
from .losses import group_sum
from .recipe import Heads, Recipe


@dataclass(frozen=True)
class Compared:
    """Student and teacher vectors at corresponding positions."""

    student_states: tuple[Tensor, ...]  # each [N, D_s]
    teacher_states: tuple[Tensor, ...]  # each [N, D_t]
    group_sizes: Tensor  # [N] student pieces summed into each row


def whole_words(
    batch: Batch, student_states: tuple[Tensor, ...], teacher_states: tuple[Tensor, ...]
) -> Compared:
    """Bring both models' states [B, L, D] to one row a group: the mean over its pieces.

    A group is the shortest stretch that ends at the same character on both sides. So a word counts
    that one side writes in one piece and the other in four, which *match* leaves out.
    """
    sides = (
        (batch.student_group, batch.student_mask, student_states),
        (batch.teacher_group, batch.teacher_mask, teacher_states),
    )
    width = int(torch.maximum(batch.teacher_group.max(), batch.student_group.max())) + 1
    rows = torch.arange(len(batch.student_ids), device=batch.student_ids.device)[:, None]
    count = len(rows) * width
    numbers = [torch.where(mask, rows * width + group, -1) for group, mask, _ in sides]
    # A text that was cut may end in a group that one side alone has.
    sizes = [torch.bincount(n[n >= 0], minlength=count) for n in numbers]
    both = torch.nonzero((sizes[0] > 0) & (sizes[1] > 0))[:, 0]
    student, teacher = (
        tuple(group_sum(h, n, count, mean=True)[both] for h in states)
        for n, (_, _, states) in zip(numbers, sides, strict=True)
    )
    return Compared(student, teacher, sizes[0][both].float())


def hidden_losses(
    compared: Compared, recipe: Recipe, heads: Heads, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return "hidden" and "contrastive", each if it has a weight: means over the layers."""
    n_teacher, n_student = (
        len(states) - 1 for states in (compared.teacher_states, compared.student_states)
    )
    states = compared.student_states
    blocks = layer_blocks(n_teacher, n_student, recipe.layer_strategy)
    averaged = average_layers(compared.teacher_states, blocks)
    if recipe.layer_strategy == "all":
        states = tuple(average_layers(states, [list(range(len(states)))]))
    weight = heads.projector.weight if heads.projector is not None else None
    losses: dict[str, Tensor] = {}
    measure = hidden_mse if recipe.hidden_loss == "mse" else hidden_cosine
    pairs = list(zip(averaged, states[len(states) - len(averaged) :], strict=True))
    if recipe.hidden:
        each = [measure(t, s, projector=weight) for t, s in pairs]
        losses["hidden"] = torch.stack(each).mean()
    if recipe.contrastive:
        shown = [s if weight is None else torch.nn.functional.linear(s, weight) for _, s in pairs]
        each = [
            contrastive(t, s, negatives=recipe.negatives, generator=generator)
            for (t, _), s in zip(pairs, shown, strict=True)
        ]
        losses["contrastive"] = torch.stack(each).mean()
    return losses
