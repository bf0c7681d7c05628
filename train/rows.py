"""Train the rows of pieces to be right in 4 bits (quantisation-aware training).

The numbers are those of the export's 4-bit table: blocks of up to 32 numbers of a row share a
scale, max|x| / 7 as float16, and each number is a multiple of it between -7 and 7. Forward passes
read rounded rows, gradients pass through the rounding unchanged (straight-through estimator, arXiv
1308.3432), and at the end the rows are rounded: what is exported then is what was trained.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

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


@contextmanager
def four_bit_rows(model: nn.Module) -> Iterator[None]:
    """Let a model read its rows in 4 bits inside, and leave them so after it.

    Inside, the weights keep all their digits: an optimizer's steps are smaller than a level.
    """
    table: nn.Embedding = encoder(model).embeddings.word_embeddings  # type: ignore[union-attr,assignment]  # of every BERT

    def round_through(module: nn.Module, given: tuple[Tensor, ...], rows: Tensor) -> Tensor:
        return rows + (rounded(rows) - rows).detach()

    handle = table.register_forward_hook(round_through)
    try:
        yield
    finally:
        handle.remove()
    with torch.no_grad():
        table.weight.copy_(rounded(table.weight))
