"""A module for sentence-transformers: sums of vectors of the pieces, beside what was pooled.

`modules.json` of a package with such vectors names it, so that its folder gives the same vectors
there, too, wherever rubert_lite is installed.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

_WEIGHTS = "model.safetensors"


class PiecesBeside(nn.Module):
    """Replace a text's vector [B, D] by its unit vector beside the unit sum of its pieces' vectors.

    Gives [B, D + width], for a Dense module behind it.
    """

    def __init__(self, weight: Tensor) -> None:
        """Take the vectors of all pieces, [V, width]."""
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Read input_ids and attention_mask [B, L], change sentence_embedding."""
        real = features["attention_mask"][:, :, None].to(self.weight.dtype)
        sums = (F.embedding(features["input_ids"], self.weight) * real).sum(1)
        parts = (features["sentence_embedding"], sums)
        both = torch.cat([F.normalize(part, dim=1, eps=1e-12) for part in parts], dim=1)
        return features | {"sentence_embedding": both}

    def save(self, output_path: str, **_: Any) -> None:
        """Write the vectors into a folder."""
        save_file({"weight": self.weight.detach().contiguous()}, Path(output_path) / _WEIGHTS)

    @staticmethod
    def load(input_path: str) -> "PiecesBeside":
        """Read what `save` wrote."""
        return PiecesBeside(load_file(Path(input_path) / _WEIGHTS)["weight"])
