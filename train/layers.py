"""The layers of an encoder and what is in them, of BERT as of DistilBERT."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .student import encoder


@dataclass(frozen=True)
class Parts:
    """What a narrower student keeps of its teacher: places in its matrices, from 0."""

    dimensions: Tensor  # [D_s] of the hidden state
    heads: Sequence[Tensor]  # of each student layer: rows of its attention's matrices
    units: Sequence[Tensor]  # of each student layer: feed-forward units

    def to(self, device: torch.device) -> "Parts":
        """Move all places to a device."""
        heads, units = ([t.to(device) for t in kept] for kept in (self.heads, self.units))
        return Parts(self.dimensions.to(device), heads, units)


def layer_stack(model: nn.Module) -> Any:
    """Return the module whose `layer` are the encoder's layers, of BERT as of DistilBERT."""
    inner: Any = encoder(model)
    return inner.encoder if hasattr(inner, "encoder") else inner.transformer


def layer_parts(model: nn.Module) -> list[dict[str, Any]]:
    """Name the parts of every layer alike for both architectures."""
    found = layer_stack(model).layer
    if model.config.model_type == "bert":  # type: ignore[union-attr]
        return [
            {
                "in": [a.self.query, a.self.key, a.self.value],
                "out": a.output.dense,
                "norm1": a.output.LayerNorm,
                "up": layer.intermediate.dense,
                "down": layer.output.dense,
                "norm2": layer.output.LayerNorm,
            }
            for layer in found
            for a in [layer.attention]
        ]
    return [
        {
            "in": [layer.attention.q_lin, layer.attention.k_lin, layer.attention.v_lin],
            "out": layer.attention.out_lin,
            "norm1": layer.sa_layer_norm,
            "up": layer.ffn.lin1,
            "down": layer.ffn.lin2,
            "norm2": layer.output_layer_norm,
        }
        for layer in found
    ]
