"""What a student starts with, by measurement: layers, dimensions, heads and units of its teacher.

Evenly spaced layers and first dimensions are guesses. What is missed least may go, and a few
batches of text tell it.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .batches import Batch
from .layers import Parts, layer_parts, layer_stack
from .student import encoder_states


def measured_layers(model: nn.Module, count: int, loss: Callable[[], float]) -> list[int]:
    """Drop layers of `model` one by one until `count` are left; return which, counted from 0.

    Each time the one goes without which `loss` of the model is least; of equals, the deepest. From
    12 layers to 3 that takes 72 measurements, not one for each of 220 choices. The model has all
    its layers again afterwards.
    """
    stack = layer_stack(model)
    whole = stack.layer
    kept = list(range(len(whole)))
    trials = sum(range(count + 1, len(kept) + 1))
    bar = tqdm(total=trials, desc="choose layers", unit="choice", disable=None, leave=False)
    try:
        while len(kept) > count:
            losses = {}
            for left_out in reversed(kept):
                stack.layer = nn.ModuleList(whole[i] for i in kept if i != left_out)
                losses[left_out] = loss()
                bar.update()
            kept.remove(min(losses, key=lambda i: losses[i]))
    finally:
        stack.layer = whole
        bar.close()
    return kept


@torch.no_grad()
def measured_parts(
    model: nn.Module, batches: Iterable[Batch], *, width: int, units: int, head_size: int
) -> Parts:
    """Return what of `model`, which reads the student's pieces, says most on `batches`.

    Dimensions by the variance of the hidden states, over all layers; of each layer, heads by the
    squared length of what they add to the hidden state, units by their root mean square times the
    length of their column. (Importance by activations: arXiv 2407.14679, in a simpler form.)
    """
    layers = layer_parts(model)
    inputs: dict[nn.Module, list[Tensor]] = {p[k]: [] for p in layers for k in ("out", "down")}
    hooks = [
        m.register_forward_pre_hook(lambda module, given: inputs[module].append(given[0]))
        for m in inputs
    ]
    states: list[list[Tensor]] = []
    masks = []
    try:
        for batch in batches:
            found = encoder_states(model, batch.student_ids, batch.student_mask)
            states.append([h[batch.student_mask].float() for h in found])
            masks.append(batch.student_mask)
    finally:
        for hook in hooks:
            hook.remove()

    def read(module: nn.Module) -> Tensor:  # what a matrix read: [pieces, its inputs]
        return torch.cat([x[m].float() for x, m in zip(inputs[module], masks, strict=True)])

    spread = torch.stack([torch.cat(level).var(0) for level in zip(*states, strict=True)]).mean(0)
    heads, kept = [], []
    for part in layers:
        given, matrix = read(part["out"]), part["out"].weight.float()
        said = [
            (given[:, k : k + head_size] @ matrix[:, k : k + head_size].t()).square().sum(1).mean()
            for k in range(0, matrix.shape[1], head_size)
        ]
        chosen = _most(torch.stack(said), width // head_size)
        steps = torch.arange(head_size, device=chosen.device)
        heads.append((chosen[:, None] * head_size + steps).flatten())
        lengths = part["down"].weight.float().norm(dim=0)
        kept.append(_most(read(part["down"]).square().mean(0).sqrt() * lengths, units))
    return Parts(_most(spread, width), heads, kept)


def _most(values: Tensor, count: int) -> Tensor:
    """Return the places of the `count` highest values, in their order."""
    return values.topk(count).indices.sort().values
