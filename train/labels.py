"""Labelled texts beside the teacher's vectors: directions that an English teacher does not have.

Each task has a linear head on the unit vector; the heads are thrown away after training
(multi-task training of sentence encoders, arXiv 1804.00079).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from rubert_lite.errors import InputError

from .batches import pad_ids
from .held_out import HeldOut
from .smileys import both_ways, read_moods
from .tasks import Records, Task, read_task

logger = logging.getLogger(__name__)

_START_SCALE = 10.0


@dataclass(frozen=True)
class LabelBatch:
    """Padded texts of several tasks and the class of each."""

    ids: Tensor  # [B, L] int64
    mask: Tensor  # [B, L] bool
    classes: Tensor  # [B] class, counted over all tasks

    def to(self, device: torch.device) -> "LabelBatch":
        """Move all tensors to a device."""
        return LabelBatch(*(t.to(device) for t in (self.ids, self.mask, self.classes)))


@dataclass(frozen=True)
class LabelledTexts:
    """The tokenised texts of some tasks; the classes of a task follow those of the one before."""

    texts: Sequence[NDArray[np.int32]]
    classes: NDArray[np.int64]  # [texts]
    ends: tuple[int, ...]  # number of classes up to and with each task
    pad_id: int

    @classmethod
    def read(
        cls,
        tasks: Sequence[Task],
        tokenizer: Tokenizer,
        *,
        exclude: Sequence[str] = (),
        max_length: int,
    ) -> "LabelledTexts":
        """Read the training files of `tasks`; no text of the files `exclude` is taken.

        Raises InputError for a record without its keys, a file without records, one label alone.
        """
        tokenizer.enable_truncation(max_length)
        tokenizer.no_padding()
        held_out = HeldOut(exclude, loosely=True)  # judged texts come in several spellings
        texts: list[NDArray[np.int32]] = []
        classes: list[int] = []
        ends: list[int] = []
        for task in tasks:
            records = read_allowed(task, held_out)
            if task.smileys:
                records = both_ways(records)
            names = sorted(set(records.labels))
            if len(names) < 2:
                raise InputError(f"{task.train}: one label, {names[0]!r}: expected at least two")
            first = ends[-1] if ends else 0
            index = {name: first + i for i, name in enumerate(names)}
            pieces = tokenizer.encode_batch(records.texts[0])
            texts += [np.asarray(p.ids, dtype=np.int32) for p in pieces]
            classes += [index[label] for label in records.labels]
            ends.append(first + len(names))
        return cls(texts, np.asarray(classes), tuple(ends), tokenizer.token_to_id("[PAD]"))

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Pieces of each text."""
        return np.asarray([len(t) for t in self.texts], dtype=np.int32)

    @property
    def counts(self) -> tuple[int, ...]:
        """Texts of each task."""
        bounds = np.searchsorted(np.sort(self.classes), (0, *self.ends))
        return tuple(int(n) for n in np.diff(bounds))

    def batch(self, indices: NDArray[Any]) -> LabelBatch:
        """Collect texts into a padded batch."""
        chosen = [self.texts[i] for i in indices]
        ids, mask = pad_ids(chosen, self.pad_id)
        return LabelBatch(ids, mask, torch.from_numpy(self.classes[indices]))


def read_allowed(task: Task, held_out: HeldOut) -> Records:
    """Read the training file of a task without the records that have a held-out text.

    Raises InputError where nothing is left.
    """
    if task.smileys:
        records = read_moods(task.train)
    else:
        records = read_task(task.train, task, limit=task.limit)
    kept = [
        i
        for i, texts in enumerate(zip(*records.texts, strict=True))
        if not any(t in held_out for t in texts)
    ]
    if not kept:
        raise InputError(f"{task.train}: every record has a text of a held-out file")
    if len(kept) < len(records):
        logger.info("%s: %d held-out records left out", task.name, len(records) - len(kept))
    columns = tuple([column[i] for i in kept] for column in records.texts)
    return Records(columns, [records.labels[i] for i in kept])


class LabelHeads(nn.Module):
    """Linear classifiers on vectors [B, D] and on their first dimensions."""

    others: Tensor

    def __init__(self, width: int, ends: Sequence[int], prefixes: Sequence[int] = ()) -> None:
        """`ends`: see LabelledTexts; `prefixes`: numbers of first dimensions that must do alone."""
        super().__init__()
        self.widths = (*prefixes, width)
        self.heads = nn.ModuleList(nn.Linear(w, ends[-1]) for w in self.widths)
        self.scale = nn.Parameter(torch.tensor(_START_SCALE))
        task = torch.cat([torch.full((b - a,), i) for i, (a, b) in enumerate(pairwise((0, *ends)))])
        self.register_buffer("others", task[:, None] != task[None, :])  # [C, C]

    def forward(self, vectors: Tensor, classes: Tensor) -> Tensor:
        """Return the mean cross-entropy of classes [B], each among those of its own task."""
        with torch.autocast(device_type=vectors.device.type, enabled=False):
            losses = []
            for width, head in zip(self.widths, self.heads, strict=True):
                scores = head(F.normalize(vectors[:, :width].float(), dim=1) * self.scale)
                scores = scores.masked_fill(self.others[classes], float("-inf"))
                losses.append(F.cross_entropy(scores, classes))
            return torch.stack(losses).mean()
