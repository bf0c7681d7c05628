"""Align the teacher's and the student's pieces of one text.

Two alignments are here. Ours works on character spans: pieces match when they cover the same
characters, and a group ends wherever both sides have a piece that ends at the same character.
Groups partition both sequences, in order, and cover the same characters. The published one (arXiv
2205.02340) scans for equal strings from left to right and is kept for fidelity: it may pair distant
pieces.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Alignment:
    """How the pieces of two tokenisations correspond; positions count special pieces, too."""

    teacher_matched: Bools  # [L_t] this piece has a student piece with the same span
    student_matched: Bools  # [L_s] as many true values as teacher_matched, in the same order
    teacher_group: Ints  # [L_t] index of the group of each piece, rising from 0
    student_group: Ints  # [L_s]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The matched (teacher position, student position) pairs."""
        teacher, student = (
            np.flatnonzero(self.teacher_matched),
            np.flatnonzero(self.student_matched),
        )
        return [(int(t), int(s)) for t, s in zip(teacher, student, strict=True)]


def align(teacher: Encoding, student: Encoding) -> Alignment:
    """Align two encodings of the same text, both with special pieces, by character spans."""
    length = max(spans(teacher)[-1][1], spans(student)[-1][1])
    sides = []
    for encoding in (teacher, student):
        array = np.array(spans(encoding), dtype=np.int64)
        array[-1] = (length, length + 1)  # [SEP] closes both texts at one place
        sides.append(array)
    return align_spans(sides[0], sides[1])


def spans(encoding: Encoding) -> list[tuple[int, int]]:
    """Give every piece a non-empty character span: [CLS] before the text, [SEP] behind it."""
    inner = [(start + 1, end + 1) for start, end in encoding.offsets[1:-1]]
    end = inner[-1][1] if inner else 1
    return [(0, 1), *inner, (end, end + 1)]


def align_spans(teacher: Ints, student: Ints) -> Alignment:
    """Align two lists of spans [n, 2] whose ends never fall; works on many texts end to end."""
    teacher_matched, student_matched = _equal_spans(teacher, student)
    common = np.intersect1d(teacher[:, 1], student[:, 1])
    return Alignment(
        teacher_matched,
        student_matched,
        np.searchsorted(common, teacher[:, 1], side="left"),
        np.searchsorted(common, student[:, 1], side="left"),
    )


def _equal_spans(teacher: Ints, student: Ints) -> tuple[Bools, Bools]:
    width = int(max(teacher.max(initial=0), student.max(initial=0))) + 1
    keys = [side[:, 0] * width + side[:, 1] for side in (teacher, student)]
    # One original character can be normalised into several pieces with the same span; such a span
    # names no single pair and is left to the groups.
    unique = []
    for key in keys:
        repeated = np.zeros(len(key), dtype=bool)
        same = key[1:] == key[:-1]
        repeated[1:] |= same
        repeated[:-1] |= same
        unique.append(key[~repeated])
    shared = np.intersect1d(unique[0], unique[1], assume_unique=True)
    return np.isin(keys[0], shared), np.isin(keys[1], shared)


def match_strings(teacher: Sequence[str], student: Sequence[str]) -> list[tuple[int, int]]:
    """Pair pieces as published: for each teacher piece the first equal student piece after the last
    pair.

    arXiv 2205.02340, technique "match" (authors' find_matching_ids). Known defect: identity is by
    string, not by place, so one early piece may grab a distant one and skip all between.
    """
    places: dict[str, list[int]] = {}
    for position, piece in enumerate(student):
        places.setdefault(piece, []).append(position)
    used = dict.fromkeys(places, 0)
    pairs: list[tuple[int, int]] = []
    behind = 0
    for position, piece in enumerate(teacher):
        found = places.get(piece, [])
        while used.get(piece, 0) < len(found) and found[used[piece]] < behind:
            used[piece] += 1
        if used.get(piece, 0) < len(found):
            pairs.append((position, found[used[piece]]))
            behind = found[used[piece]] + 1
    return pairs


def split_piece(piece: str, student: Mapping[str, int]) -> list[int] | None:
    """Split one teacher piece greedily, longest first, into student pieces; None if it cannot be.

    The first part keeps the piece's own `##`, later parts must exist as `##part` (arXiv 2205.02340,
    the authors' teacher_tokens_split; the published code's misspelt [UNK] rule is not reproduced).
    """
    prefix, rest = ("##", piece[2:]) if piece.startswith("##") and len(piece) > 2 else ("", piece)
    found: list[int] = []
    while rest:
        for end in range(len(rest), 0, -1):
            index = student.get(prefix + rest[:end])
            if index is not None:
                found.append(index)
                rest, prefix = rest[end:], "##"
                break
        else:
            return None
    return found


def piece_splits(
    teacher: Sequence[str], student: Mapping[str, int], *, special: Sequence[str]
) -> list[list[int]]:
    """Split every teacher piece into student pieces (the T2S map); [] where there is no split.

    Special pieces map to themselves; other bracketed pieces of the teacher (`[unused1]`) to
    nothing.
    """
    splits: list[list[int]] = []
    for piece in teacher:
        if piece in special:
            splits.append([student[piece]])
        elif piece.startswith("[") and piece.endswith("]") and len(piece) > 2:
            splits.append([])
        else:
            splits.append(split_piece(piece, student) or [])
    return splits


def notation(tokenizer: Tokenizer, text: str) -> str:
    """Write the pieces of a text as `"при|##вет"`, without specials: for reports and tests."""
    return "|".join(tokenizer.encode(text, add_special_tokens=False).tokens)
