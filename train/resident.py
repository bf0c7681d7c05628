"""Training texts kept on the GPU whole: a step then waits for no file, no copy and no other thread.

Assembling a batch of 32,768 pieces takes a core 10 ms; on the GPU it is a dozen small kernels.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .batches import Batch, Texts
from .items import Items, SentenceBatch
from .shards import GROUP_END, MATCHED, STRING_MATCHED

_SHARE = 0.25  # of the free memory that texts may take


@dataclass(frozen=True)
class _Side:
    """One side of all texts, end to end, on the device; lengths on the host, so nothing waits."""

    ids: Tensor  # [total] int32
    flags: Tensor  # [total] uint8
    starts: Tensor  # [texts]
    lengths: NDArray[np.int64]  # [texts]


def gather(
    values: Tensor, starts: Tensor, lengths: Tensor, width: int, fill: int
) -> tuple[Tensor, Tensor]:
    """Return slices of a flat tensor as int64 rows [B, width], padded, and what is real."""
    places = torch.arange(width, device=values.device)
    mask = places < lengths[:, None]
    rows = values[(starts[:, None] + places).clamp(max=len(values) - 1)].long()
    return rows.masked_fill(~mask, fill), mask


class ResidentTexts:
    """`Texts` on a device: the same batches, made there."""

    def __init__(self, texts: Texts, device: torch.device) -> None:
        """Copy all texts to `device`."""
        self.device = device
        self.lengths = texts.lengths
        self.student, self.teacher = (_side(texts, s, device) for s in ("student", "teacher"))

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.lengths)

    def batch(self, indices: NDArray[np.int64], *, strings: bool = False) -> Batch:
        """Collect texts into one padded batch; see Texts.batch."""
        chosen = torch.from_numpy(indices).to(self.device, non_blocking=True)
        matched = STRING_MATCHED if strings else MATCHED
        take = partial(self._take, indices=indices, chosen=chosen, matched=matched)
        return Batch(*take(self.teacher), *take(self.student))

    def _take(
        self, side: _Side, *, indices: NDArray[np.int64], chosen: Tensor, matched: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        host = side.lengths[indices]
        lengths = torch.from_numpy(host).to(self.device, non_blocking=True)
        starts, width = side.starts[chosen], int(host.max())
        ids, mask = gather(side.ids, starts, lengths, width, 0)
        flags, _ = gather(side.flags, starts, lengths, width, 0)
        ends = ((flags & GROUP_END) > 0).long()
        return ids, mask, (flags & matched) > 0, ends.cumsum(1) - ends


class ResidentItems:
    """`Items` on a device, with the vectors of all their pairs."""

    def __init__(self, items: Items, device: torch.device) -> None:
        """Copy all items and their targets to `device`."""
        self.device, self.pad_id, self.lengths = device, items.pad_id, items.lengths
        self.targets = items.targets
        self._ids = torch.from_numpy(np.asarray(items.ids).astype(np.int32)).to(device)
        self._starts = torch.from_numpy(items.starts[:-1]).to(device)
        self._pairs = torch.from_numpy(items.pairs).to(device)
        everything = np.arange(len(items.targets.rows))
        self._vectors = torch.from_numpy(items.targets.vectors(everything)).to(device)
        self._groups = torch.from_numpy(items.targets.groups(everything)).to(device)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.lengths)

    def batch(self, indices: NDArray[np.int64]) -> SentenceBatch:
        """Collect items into a padded batch; see Items.batch."""
        chosen = torch.from_numpy(indices).to(self.device, non_blocking=True)
        host = self.lengths[indices].astype(np.int64)
        lengths = torch.from_numpy(host).to(self.device, non_blocking=True)
        ids, mask = gather(self._ids, self._starts[chosen], lengths, int(host.max()), self.pad_id)
        pairs = self._pairs[chosen]
        return SentenceBatch(ids, mask, self._vectors[pairs], self._groups[pairs])


def _side(texts: Texts, name: str, device: torch.device) -> _Side:
    sides = [getattr(s, name) for s in texts.shards]
    ids = np.concatenate([np.asarray(s.ids).astype(np.int32) for s in sides])
    flags = np.concatenate([np.asarray(s.flags) for s in sides])
    lengths = np.concatenate([np.diff(s.starts) for s in sides])
    starts = np.cumsum(lengths) - lengths
    on = [torch.from_numpy(a).to(device) for a in (ids, flags, starts)]
    return _Side(on[0], on[1], on[2], lengths)


def texts_on(texts: Texts, device: torch.device) -> Texts | ResidentTexts:
    """Return the texts on a GPU that has room for them, as they are otherwise."""
    size = 10 * sum(len(s.student.ids) for s in texts.shards)
    return ResidentTexts(texts, device) if _has_room(device, size) else texts


def items_on(items: Items, device: torch.device) -> Items | ResidentItems:
    """Return the items on a GPU that has room for them, as they are otherwise."""
    size = 4 * len(items.ids) + 2 * items.targets.width * len(items.targets.rows)
    return ResidentItems(items, device) if _has_room(device, size) else items


def _has_room(device: torch.device, size: int) -> bool:
    return device.type == "cuda" and size < _SHARE * torch.cuda.mem_get_info(device)[0]
