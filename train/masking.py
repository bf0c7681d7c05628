"""Corrupt pieces for masked language modelling."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Masking:
    """Which pieces are drawn, how many, and what stands in their place."""

    special: Tensor  # [V] bool: never drawn
    mask_id: int
    counts: Tensor | None = None  # [V] float, of the corpus
    exponent: float = 0.0  # of the count in the weight of a piece
    share: float = 0.15


def mask_tokens(
    ids: Tensor, masking: Masking, *, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return ids [B, L] with some pieces replaced, and where pieces were drawn [B, L].

    ceil(share * tokens) places of the whole batch are drawn without replacement with weight
    max(count, 1) ** exponent; tokens are the pieces that are not special, and padding is special
    (the published count has [CLS] and [SEP] in it, too). 80% become `mask_id`, 10% a random id,
    10% stay. Exponent 0 or no counts: uniform; -0.7 is DistilBERT's (rare pieces favoured), +0.7
    that of arXiv 2205.02340 (frequent ones).
    """
    flat = ids.reshape(-1)
    free = ~masking.special.to(flat.device)[flat]
    n_chosen = math.ceil(masking.share * int(free.sum()) - 1e-9)
    # The n greatest of log weight + Gumbel noise are multinomial without replacement; here without
    # the limit of 2^24 categories that torch.multinomial has.
    noise = torch.empty(flat.shape, device=generator.device).exponential_(generator=generator)
    keys = -noise.log().to(flat.device)
    if masking.counts is not None and masking.exponent != 0.0:
        keys = keys + masking.exponent * masking.counts.to(flat.device)[flat].clamp(min=1).log()
    chosen = keys.masked_fill(~free, -math.inf).topk(n_chosen).indices
    fate = torch.rand(n_chosen, device=generator.device, generator=generator).to(flat.device)
    random_ids = torch.randint(
        len(masking.special), (n_chosen,), device=generator.device, generator=generator
    ).to(flat)
    new_ids = torch.where(
        fate < 0.8, masking.mask_id, torch.where(fate < 0.9, random_ids, flat[chosen])
    )
    masked = flat.clone()
    masked[chosen] = new_ids
    positions = torch.zeros_like(free)
    positions[chosen] = True
    return masked.reshape(ids.shape), positions.reshape(ids.shape)


def hide_pieces(mask: Tensor, share: float, *, generator: torch.Generator) -> Tensor:
    """Return the mask [B, L] without this share of its pieces, never without the first ([CLS]).

    Word dropout (Iyyer et al., 2015): a text hides other pieces each time, and is not learnt by
    heart. Nothing is drawn from `generator` at a share of 0.
    """
    if not share:
        return mask
    noise = torch.rand(mask.shape, device=generator.device, generator=generator).to(mask.device)
    shown = noise >= share
    shown[:, 0] = True
    return mask & shown
