"""Link two vocabularies: which pieces correspond, as lists and as tensors for the losses."""

from collections.abc import Sequence

import torch

from rubert_lite.wordpiece import SPECIAL_PIECES, pieces_by_id

from .alignment import piece_splits, split_piece
from .initialise import Links
from .losses import PieceMap
from .recipe import Vocabularies
from .tokenizer import Spec


def link(base: Spec, spec: Spec, kept: Sequence[int]) -> Links:
    """Find the student pieces of every teacher piece, and the other way round."""
    teacher_pieces, known = pieces_by_id(base), base["model"]["vocab"]
    splits = piece_splits(teacher_pieces, spec["model"]["vocab"], special=SPECIAL_PIECES)
    names: dict[int, str] = {}
    for piece, index in spec["model"]["vocab"].items():
        names.setdefault(index, piece)
    sources = [
        [old] if old >= 0 else (split_piece(names[new], known) or [])
        for new, old in enumerate(kept)
    ]
    return Links(splits, sources)


def link_vocabularies(
    base: Spec, spec: Spec, kept: Sequence[int], links: Links, counts: torch.Tensor | None
) -> Vocabularies:
    """Make the tensors that the losses need of both vocabularies."""
    ids = spec["model"]["vocab"]
    special = torch.zeros(len(kept), dtype=torch.bool)
    special[[ids[p] for p in SPECIAL_PIECES]] = True
    shared = [(old, new) for new, old in enumerate(kept) if old >= 0]
    filled = [list(s) or [ids["[UNK]"]] for s in links.splits]
    return Vocabularies(
        teacher_classes=torch.tensor([old for old, _ in shared], dtype=torch.long),
        student_classes=torch.tensor([new for _, new in shared], dtype=torch.long),
        splits=PieceMap.of(filled, len(kept)),
        mapped=PieceMap.of([list(s) for s in links.splits], len(kept)),
        special=special,
        counts=counts,
        pad_id=ids["[PAD]"],
        mask_id=ids["[MASK]"],
        teacher_mask_id=base["model"]["vocab"]["[MASK]"],
        teacher_unk_id=base["model"]["vocab"]["[UNK]"],
    )
