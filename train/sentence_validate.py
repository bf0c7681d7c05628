"""How near a student's vectors are to the held-out vectors of its sentence teacher."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batches import plan_epoch
from .items import Items
from .sentence_recipe import Sentences

_VALID_TOKENS = 8192


def comparable(
    pooled: Tensor, targets: Tensor, width: int, projector: nn.Linear | None
) -> tuple[Tensor, Tensor]:
    """Bring the first dimensions of the student and the targets to one width."""
    if projector is None:
        return targets[:, :width], pooled[:, :width]
    return targets, F.linear(pooled[:, :width], projector.weight[:, :width].to(pooled.dtype))


@torch.no_grad()
def validate_sentences(
    said: Callable[[Tensor, Tensor], Tensor],
    valid: Items,
    projector: nn.Linear | None,
    rotation: Tensor | None,
    *,
    device: torch.device,
    sentences: Sentences,
) -> dict[str, float]:
    """Measure held-out pairs: mean cosine with the target, and recall@1 of it among all targets.

    `said` reads pieces and their mask, both [B, N], on `device`, and returns vectors [B, D].
    cosine, recall: whole vectors; cosine_64 and so on: their first dimensions alone.
    """
    batches = plan_epoch(valid.lengths, tokens=_VALID_TOKENS, seed=0, epoch=0)
    pooled, targets = [], []
    for indices in batches:
        batch = valid.batch(indices).to(device).rotated(rotation)
        pooled.append(said(batch.ids, batch.mask).float())
        targets.append(batch.targets)
    vectors, wanted = torch.cat(pooled), torch.cat(targets)
    scores: dict[str, float] = {}
    for width in (*sentences.prefixes, vectors.shape[1]):
        shown, given = comparable(vectors, wanted, width, projector)
        shown, given = F.normalize(shown.float(), dim=1), F.normalize(given.float(), dim=1)
        suffix = "" if width == vectors.shape[1] else f"_{width}"
        scores[f"cosine{suffix}"] = float((shown * given).sum(1).mean())
        scores[f"recall{suffix}"] = _recall(given, shown)
    return {name: round(value, 5) for name, value in scores.items()}


def _recall(queries: Tensor, documents: Tensor) -> float:
    hits: Sequence[Tensor] = [(rows @ documents.T).argmax(1) for rows in torch.split(queries, 1024)]
    places = torch.arange(len(queries), device=queries.device)
    return float((torch.cat(list(hits)) == places).float().mean())
