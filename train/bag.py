"""Which pieces a text has, told from its vector: keeps topic and wording in the pooled vector.

A linear map from the unit vector predicts the pieces of the whole text (after the bag-of-words
part of DupMAE, arXiv 2305.02564), each weighed by how rare it is.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_START_SCALE = 10.0


class Bag(nn.Module):
    """A decoder of vectors [B, D] into the pieces of their texts; thrown away after training."""

    idf: Tensor

    def __init__(self, width: int, counts: Tensor, special: Tensor) -> None:
        """`counts` [V] of each piece in the corpus; special pieces [V] bool count nothing."""
        super().__init__()
        self.decoder = nn.Linear(width, len(counts))
        self.scale = nn.Parameter(torch.tensor(_START_SCALE))
        idf = torch.log(counts.sum() / counts.clamp(min=1)).masked_fill(special, 0.0)
        self.register_buffer("idf", idf)
        with torch.no_grad():
            share = (counts * idf + 1.0) / (counts * idf + 1.0).sum()
            self.decoder.bias.copy_(share.log())

    def forward(self, vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the mean cross-entropy of the pieces ids [B, L] (mask: real ones), idf-weighed.

        A text of special pieces alone counts 0.
        """
        with torch.autocast(device_type=vectors.device.type, enabled=False):
            scores = self.decoder(F.normalize(vectors.float(), dim=1) * self.scale)
            weights = self.idf[ids] * mask
            weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-6)
            surprise = torch.logsumexp(scores, dim=1, keepdim=True) - scores.gather(1, ids)
            loss: Tensor = (weights * surprise).sum(1).mean()
            return loss
