"""Pairs of texts with grades of likeness: what a teacher of another language does not judge.

The cosine of a pair has to follow its grade among the pairs of its task in the batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from rubert_lite.errors import InputError

from .batches import pad_ids
from .held_out import HeldOut
from .labels import read_allowed
from .sentence_losses import grade_order
from .tasks import Task


@dataclass(frozen=True)
class GradedBatch:
    """Padded texts of B pairs, the first of each and then the second, with grade and task."""

    ids: Tensor  # [2 B, L] int64
    mask: Tensor  # [2 B, L] bool
    grades: Tensor  # [B] float32
    tasks: Tensor  # [B] int64

    def to(self, device: torch.device) -> "GradedBatch":
        """Move all tensors to a device."""
        return GradedBatch(*(t.to(device) for t in (self.ids, self.mask, self.grades, self.tasks)))


@dataclass(frozen=True)
class GradedPairs:
    """The tokenised pairs of some tasks; grades of different tasks are not compared."""

    texts: Sequence[tuple[NDArray[np.int32], NDArray[np.int32]]]
    grades: NDArray[np.float32]  # [pairs]
    tasks: NDArray[np.int64]  # [pairs]
    pad_id: int

    @classmethod
    def read(
        cls,
        tasks: Sequence[Task],
        tokenizer: Tokenizer,
        *,
        exclude: Sequence[str] = (),
        max_length: int,
    ) -> "GradedPairs":
        """Read the training files of `tasks`; no pair with a text of the files `exclude` is taken.

        Labels are numbers, a higher one for texts more alike. Raises InputError for a record
        without its keys, a label that is no number, a file without pairs, one grade alone.
        """
        tokenizer.enable_truncation(max_length)
        tokenizer.no_padding()
        held_out = HeldOut(exclude, loosely=True)  # judged texts come in several spellings
        texts: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
        grades: list[float] = []
        numbers: list[int] = []
        for number, task in enumerate(tasks):
            records = read_allowed(task, held_out)
            found = [_grade(task, label) for label in records.labels]
            if len(set(found)) < 2:
                raise InputError(f"{task.train}: one grade, {found[0]:g}: expected at least two")
            for both in zip(*map(tokenizer.encode_batch, records.texts), strict=True):
                first, second = (np.asarray(side.ids, dtype=np.int32) for side in both)
                texts.append((first, second))
            grades += found
            numbers += [number] * len(records)
        pad_id = tokenizer.token_to_id("[PAD]")
        return cls(texts, np.asarray(grades, np.float32), np.asarray(numbers), pad_id)

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Padded pieces of each pair alone."""
        return np.asarray([2 * max(map(len, pair)) for pair in self.texts], dtype=np.int32)

    @property
    def counts(self) -> tuple[int, ...]:
        """Pairs of each task."""
        return tuple(int(n) for n in np.bincount(self.tasks))

    def batch(self, indices: NDArray[Any]) -> GradedBatch:
        """Collect pairs into a padded batch."""
        chosen = [self.texts[i] for i in indices]
        ids, mask = pad_ids([pair[side] for side in (0, 1) for pair in chosen], self.pad_id)
        labels = torch.from_numpy(self.grades[indices]), torch.from_numpy(self.tasks[indices])
        return GradedBatch(ids, mask, *labels)


def _grade(task: Task, label: str) -> float:
    try:
        grade = float(label)
    except ValueError:
        grade = math.nan
    if not math.isfinite(grade):
        raise InputError(
            f"{task.train}: label {label!r} is no number: expected grades, higher for texts more"
            " alike"
        )
    return grade


def graded_loss(
    vectors: Tensor, batch: GradedBatch, prefixes: Sequence[int], *, temperature: float
) -> Tensor:
    """Return the mean of `grade_order` over whole vectors [2 B, D] and their first dimensions."""
    losses = []
    with torch.autocast(device_type=vectors.device.type, enabled=False):
        for width in (*prefixes, vectors.shape[1]):
            first, second = F.normalize(vectors[:, :width].float(), dim=1).chunk(2)
            cosines = (first * second).sum(1)
            losses.append(grade_order(cosines, batch.grades, batch.tasks, temperature=temperature))
    return torch.stack(losses).mean()
