"""Give a trained encoder other pieces: what it says of a text stays near what it said."""

from typing import Any

import torch
from torch import nn

from rubert_lite.wordpiece import pieces_by_id

from .initialise import fill_rows
from .links import link
from .student import output_rows
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
