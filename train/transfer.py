"""Change a trained encoder and keep what it knows: other pieces, or weights nearer the former."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from rubert_lite.wordpiece import pieces_by_id

from .initialise import fill_rows
from .links import link
from .student import encoder, output_rows
from .tokenizer import Spec


@torch.no_grad()
def change_pieces(model: nn.Module, former: Spec, own: Spec) -> None:
    """Turn the rows of a masked language model for the pieces of `former` into rows for `own`.

    A piece that there was keeps its row and bias; a new one begins with the mean of those of the
    pieces that `former` cuts it into (fast vocabulary transfer, arXiv 2402.09977), and one that it
    cannot cut with the mean of all.
    """
    known = former["model"]["vocab"]
    kept = [known.get(piece, -1) for piece in pieces_by_id(own)]
    _, rows, bias = output_rows(model)
    rows, bias = rows.detach().clone(), bias.detach().clone()
    resized: Any = model
    resized.resize_token_embeddings(len(kept), mean_resizing=False)
    _, new_rows, new_bias = output_rows(model)
    new_rows[:] = rows.mean(0)
    new_bias[:] = bias.mean()
    fill_rows(
        model, rows, bias, link(former, own, kept), rows="fvt", basis=torch.eye(rows.shape[1])
    )


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Return the shapes of an encoder's weights by name."""
    return {name: weight.shape for name, weight in encoder(model).state_dict().items()}


@torch.no_grad()
def mix_weights(student: nn.Module, kept: Sequence[tuple[nn.Module, float]]) -> None:
    """Turn the encoder's weights w into (1 - sum of shares) w + sum of share * w0.

    `kept` are models that it comes from, and the share of each one's weights w0. What a stage
    teaches stays for the most part, and less is lost of what it does not teach (WiSE-FT,
    arXiv 2109.01903).
    """
    others = [(encoder(model).state_dict(), share) for model, share in kept]
    rest = 1 - sum(share for _, share in others)
    for name, weight in encoder(student).state_dict().items():
        if weight.is_floating_point():
            mixed = rest * weight.double()
            for before, share in others:
                mixed += share * before[name].to(mixed)
            weight.copy_(mixed)
