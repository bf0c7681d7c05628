"""What a student says of texts when its training is over."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from .batches import Texts, pad_ids
from .items import Items
from .student import hidden_size, mean_pooled

Pieces = NDArray[np.integer]  # ids of a text, the special ones among them

_ROWS = 256  # texts read together


def piece_lists(texts: Texts | Items, rows: NDArray[np.int64]) -> list[Pieces]:
    """Return the pieces of some texts, as the student reads them."""
    if isinstance(texts, Items):
        ends = zip(texts.starts[rows], texts.starts[rows + 1], strict=True)
        return [np.asarray(texts.ids[start:end]) for start, end in ends]
    found: list[Pieces] = []
    for start in range(0, len(rows), _ROWS):
        batch = texts.batch(rows[start : start + _ROWS])
        both = zip(batch.student_ids.numpy(), batch.student_mask.numpy(), strict=True)
        found += [ids[mask] for ids, mask in both]
    return found


def pooled_vectors(
    student: nn.Module, texts: Texts | Items, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the unit mean-pooled vectors of some texts, [rows, D]."""
    return pooled_lists(student, piece_lists(texts, rows))


@torch.no_grad()
def pooled_lists(student: nn.Module, texts: Sequence[Pieces]) -> NDArray[np.float32]:
    """Return the unit mean-pooled vectors of texts of pieces, [texts, D]."""
    student.eval()
    device = next(student.parameters()).device
    order = np.argsort([len(ids) for ids in texts], kind="stable")  # little padding
    found = np.empty((len(texts), hidden_size(student)), np.float32)
    starts = range(0, len(texts), _ROWS)
    for start in tqdm(starts, desc="vectors for axes", unit="batch", disable=None):
        chosen = order[start : start + _ROWS]
        ids, mask = pad_ids([texts[i] for i in chosen], 0)
        vectors = mean_pooled(student, ids.to(device), mask.to(device)).float()
        found[chosen] = F.normalize(vectors, dim=1).cpu().numpy()
    return found
