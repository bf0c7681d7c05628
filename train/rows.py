"""Train rows of pieces: to be right in 4 bits (quantisation-aware training), or some of them alone.

The numbers are those of the export's 4-bit table: blocks of up to 32 numbers of a row share a
scale, max|x| / 7 as float16, and each number is a multiple of it between -7 and 7. Forward passes
read rounded rows, gradients pass through the rounding unchanged (straight-through estimator, arXiv
1308.3432), and at the end the rows are rounded: what is exported then is what was trained.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rubert_lite.errors import ConfigError

from .student import encoder

_LEVELS = 7
_BLOCK = 32


def rounded(rows: Tensor) -> Tensor:
    """Return rows [..., width] with every number at the nearest of its block's 15 levels.

    The block is the largest divisor of the width up to 32.
    """
    width = rows.shape[-1]
    size = next(n for n in range(_BLOCK, 0, -1) if width % n == 0)
    blocks = rows.float().reshape(*rows.shape[:-1], -1, size)
    scale = (blocks.abs().amax(-1, keepdim=True) / _LEVELS).half().float()
    scale = torch.where(scale == 0, 1.0, scale)
    levels = (blocks / scale).round().clamp(-_LEVELS, _LEVELS)
    return (levels * scale).reshape(rows.shape).to(rows.dtype)


def round_through(rows: Tensor) -> Tensor:
    """Return rounded rows, through which gradients pass unchanged."""
    return rows + (rounded(rows) - rows).detach()


@contextmanager
def four_bit_rows(table: nn.Embedding) -> Iterator[None]:
    """Let a table be read in 4 bits inside, and leave it so after it.

    Inside, the weights keep all their digits: an optimizer's steps are smaller than a level.
    """

    def read(module: nn.Module, given: tuple[Tensor, ...], rows: Tensor) -> Tensor:
        return round_through(rows)

    handle = table.register_forward_hook(read)
    try:
        yield
    finally:
        handle.remove()
    with torch.no_grad():
        table.weight.copy_(rounded(table.weight))


def learn_only(
    model: nn.Module, beside: nn.Embedding | None, pieces: Sequence[str], pattern: str
) -> int:
    """Freeze a model but for the rows of the pieces in which `pattern` is found; return how many.

    So of the vectors of pieces `beside` it, if there are any. What has none of these pieces gets
    the vectors that it got before. An optimizer must not decay the weights: it would move the other
    rows, too. Raises ConfigError if no piece matches, or all.
    """
    learns = torch.tensor([re.search(pattern, piece) is not None for piece in pieces])
    if not learns.any() or learns.all():
        raise ConfigError(
            [
                f"sentence.only_rows = {pattern!r}: matches {int(learns.sum())} of {len(pieces)}"
                " pieces, expected some of them"
            ]
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for table in (row_table(model), beside):
        if table is not None:
            rows_that_learn(table, learns)
    return int(learns.sum())


def rows_that_learn(table: nn.Embedding, learns: Tensor) -> None:
    """Let those rows of a table learn for which `learns` [V] holds, and no others."""
    rows: Any = table.weight
    rows.requires_grad_(True)
    rows.register_hook(lambda gradient: gradient * learns.to(gradient)[:, None])


def row_table(model: nn.Module) -> nn.Embedding:
    """Return the rows of a BERT's pieces."""
    found: Any = encoder(model)
    table: nn.Embedding = found.embeddings.word_embeddings
    return table
