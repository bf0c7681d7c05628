"""What a distillation run is made of: choices, models, and what links their vocabularies."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .losses import PieceMap

Alignment = Literal["none", "plain", "match", "match-string", "reduce", "reduce-map"]


@dataclass(frozen=True)
class Recipe:
    """The choices of a distillation run; weights of 0 leave a loss out."""

    alignment: Alignment = "reduce"
    kl: float = 2.0
    mlm: float = 0.5
    hidden: float = 0.0
    contrastive: float = 0.0
    span: float = 0.0  # likelihoods of whole masked words; masking is by words then
    span_temperature: float = 100.0
    hidden_loss: Literal["mse", "cosine"] = "cosine"
    # Where match and plain compare states: at matched pieces, or over whole words (their means)
    hidden_at: Literal["pieces", "words"] = "pieces"
    layer_strategy: Literal["all", "blocks", "last", "skip"] = "blocks"
    map_mode: Literal["sum", "logsumexp"] = "logsumexp"
    combine: Literal["sum", "mean"] = "sum"  # the parts of a teacher piece
    temperature: float = 2.0
    tail: bool = False  # keep teacher mass outside the shared classes as one more class
    mask_teacher: bool = False  # the teacher sees the masks, too, so its answers are predictions
    # Where match and plain compare: everywhere (as published), or at the places drawn to be masked,
    # of which the student sees 80% as [MASK]; states over whole words are compared everywhere
    compare: Literal["all", "masked"] = "all"
    positions: int = 1024  # compared positions a micro-batch at most, drawn anew each time
    mask_share: float = 0.15
    mask_exponent: float = 0.0  # of the piece count in the choice of masked pieces
    negatives: int = 64


@dataclass(frozen=True)
class Vocabularies:
    """What links the two vocabularies, as tensors on the device of the student."""

    teacher_classes: Tensor  # [K] ids of the shared pieces
    student_classes: Tensor  # [K]
    splits: PieceMap  # the student pieces of every teacher piece, [UNK] where there are none
    mapped: PieceMap  # the same without the pieces that cannot be split
    special: Tensor  # [V_s] bool
    counts: Tensor | None  # [V_s] float, piece counts of the corpus
    pad_id: int
    mask_id: int
    teacher_mask_id: int
    teacher_unk_id: int

    def to(self, device: torch.device) -> "Vocabularies":
        """Move the tensors to a device."""
        return Vocabularies(
            self.teacher_classes.to(device),
            self.student_classes.to(device),
            self.splits.to(device),
            self.mapped.to(device),
            self.special.to(device),
            self.counts.to(device) if self.counts is not None else None,
            self.pad_id,
            self.mask_id,
            self.teacher_mask_id,
            self.teacher_unk_id,
        )


@dataclass(frozen=True)
class Pair:
    """The models of a run; no teacher means masked-language modelling alone."""

    student: nn.Module
    teacher: nn.Module | None
    vocabularies: Vocabularies

    def to(self, device: torch.device) -> "Pair":
        """Move everything to a device."""
        teacher = self.teacher.to(device) if self.teacher is not None else None
        return Pair(self.student.to(device), teacher, self.vocabularies.to(device))


@dataclass(frozen=True)
class Heads:
    """Trainable maps from the student's hidden size to the teacher's, used by the hidden losses."""

    projector: nn.Linear | None
