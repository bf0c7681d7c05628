"""Draw batches of similar length from aligned shards, in an order that only the seed decides."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rubert_lite.errors import InputError

from .shards import GROUP_END, MATCHED, STRING_MATCHED, Shard, Side, iter_shards

_WINDOW = 16_384  # texts sorted by length together: enough for even batches, few enough for chance


@dataclass(frozen=True)
class Batch:
    """Padded pieces of some texts on both sides; padding has id 0 and mask False."""

    teacher_ids: Tensor  # [B, L_t] int64
    teacher_mask: Tensor  # [B, L_t] bool
    teacher_matched: Tensor  # [B, L_t] bool
    teacher_group: Tensor  # [B, L_t] int64, index of the group inside the text
    student_ids: Tensor  # [B, L_s]
    student_mask: Tensor
    student_matched: Tensor
    student_group: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Move all tensors to a device."""
        moved = (getattr(self, f.name).to(device, non_blocking=True) for f in fields(self))
        return Batch(*moved)


@dataclass(frozen=True)
class Texts:
    """The texts of one split over all its shards."""

    shards: Sequence[Shard]
    shard_starts: NDArray[np.int64]  # [shards + 1]: number of texts before each shard
    lengths: NDArray[np.int32]  # [texts]: pieces of the longer side

    @classmethod
    def open(cls, folder: Path, split: str) -> "Texts":
        """Open a split of a shards stage; only the lengths are read."""
        shards = list(iter_shards(folder, split))
        lengths = [
            np.maximum(np.diff(s.teacher.starts), np.diff(s.student.starts)).astype(np.int32)
            for s in shards
        ]
        starts = np.cumsum([0] + [len(s) for s in shards])
        return cls(shards, starts, np.concatenate(lengths))

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.lengths)

    def batch(self, indices: Sequence[int] | NDArray[np.int64], *, strings: bool = False) -> Batch:
        """Collect texts into one padded batch; `strings` takes the published string matching."""
        indices = np.asarray(indices)
        numbers = np.searchsorted(self.shard_starts, indices, side="right") - 1
        places = indices - self.shard_starts[numbers]
        matched = STRING_MATCHED if strings else MATCHED
        teacher = _pad(self.shards, "teacher", numbers, places, matched)
        student = _pad(self.shards, "student", numbers, places, matched)
        return Batch(*teacher, *student)


def _pad(
    shards: Sequence[Shard], side: str, numbers: NDArray[Any], places: NDArray[Any], matched: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pad one side of texts: the shard of each [B] and its place in it [B]."""
    lengths = np.empty(len(numbers), dtype=np.int64)
    starts = np.empty(len(numbers), dtype=np.int64)
    chosen = {int(n): np.flatnonzero(numbers == n) for n in np.unique(numbers)}
    sides: dict[int, Side] = {n: getattr(shards[n], side) for n in chosen}
    for number, rows in chosen.items():
        own = sides[number].starts
        starts[rows] = own[places[rows]]
        lengths[rows] = own[places[rows] + 1] - starts[rows]
    shape = (len(numbers), int(lengths.max()))
    ids, flags = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.uint8)
    for number, rows in chosen.items():
        for out, values in ((ids, sides[number].ids), (flags, sides[number].flags)):
            found, _ = gather(values, starts[rows], lengths[rows], 0)
            out[rows, : found.shape[1]] = found
    mask = np.arange(shape[1]) < lengths[:, None]
    ends = (flags & GROUP_END) > 0
    groups: NDArray[np.int64] = (
        np.cumsum(ends, axis=1) - ends
    )  # the piece that ends a group still belongs to it
    arrays = (ids, mask, (flags & matched) > 0, groups)
    tensors = [torch.from_numpy(np.ascontiguousarray(a)) for a in arrays]
    return tensors[0], tensors[1], tensors[2], tensors[3]


def gather(
    values: NDArray[Any], starts: NDArray[Any], lengths: NDArray[Any], fill: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return slices of a flat array as rows [B, longest], padded with `fill`, and what is real."""
    places = np.arange(int(lengths.max()))
    mask = places < np.asarray(lengths)[:, None]
    rows = np.full(mask.shape, fill, dtype=np.int64)
    rows[mask] = values[(np.asarray(starts)[:, None] + places)[mask]]
    return rows, mask


def pad_ids(texts: Sequence[Any], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return ids [B, L] of texts of pieces, padded at the end, and where they are real [B, L]."""
    width = max(map(len, texts))
    ids = np.full((len(texts), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(texts), width), dtype=bool)
    for row, values in enumerate(texts):
        ids[row, : len(values)], mask[row, : len(values)] = values, True
    return torch.from_numpy(ids), torch.from_numpy(mask)


def plan_epoch(
    lengths: NDArray[np.int32], *, tokens: int, seed: int, epoch: int
) -> Iterator[NDArray[np.int64]]:
    """Yield the text indices of every batch of an epoch: at most `tokens` padded pieces each.

    A text longer than `tokens` is a batch of its own. Each text comes once an epoch.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    for start in range(0, len(order), _WINDOW):
        window = order[start : start + _WINDOW]
        window = window[np.argsort(lengths[window], kind="stable")]
        cuts = [0]
        for position, index in enumerate(window):
            # Sorted by length: the last text of a batch is its longest.
            if position > cuts[-1] and (position + 1 - cuts[-1]) * lengths[index] > tokens:
                cuts.append(position)
        batches = np.split(window, cuts[1:])
        for number in rng.permutation(len(batches)):
            yield batches[number]


def plan(
    lengths: NDArray[np.int32], *, tokens: int, seed: int, skip: int = 0
) -> Iterator[NDArray[np.int64]]:
    """Yield the batches of epoch after epoch without end, leaving out the first `skip`.

    Raises InputError where there is nothing to draw from.
    """
    if not len(lengths):
        raise InputError("no texts to train on: every one was left out")
    epoch = 0
    while True:
        for batch in plan_epoch(lengths, tokens=tokens, seed=seed, epoch=epoch):
            if skip > 0:
                skip -= 1
                continue
            yield batch
        epoch += 1
