"""Small models without meaning, and what they say."""

from typing import Any

import torch
from torch import Tensor

from train.initialise import Links
from train.student import (
    Shape,
    build,
    freeze,
)

IDS = torch.tensor([[1, 5, 6, 7, 2], [1, 8, 2, 0, 0]])
MASK = IDS > 0
V = 12
SAME = Links([[i] for i in range(V)], [[i] for i in range(V)])


def small(architecture: Any = "distilbert", *, layers: int = 4, width: int = 16) -> Any:
    shape = Shape(layers, width, 4, 24, V, 16, architecture)
    return build(shape).eval()


def shaken(model: Any, seed: int = 0) -> Any:
    """Move every parameter, so that biases and LayerNorms are not what any model starts with."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in freeze(model).parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=MASK.long()).logits[MASK]


# Millions by our count, and as printed on the model cards.
