"""Tokenise the corpus for teacher and student, align both, and store it for memory-mapped reading.

A shard is a folder of plain .npy arrays: the ids of all its texts end to end, one byte of flags for
every piece, and where each text begins. A text that is too long is cut where both sides have a
boundary.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tqdm import tqdm

from rubert_lite.errors import InputError

from .alignment import Ints, align_spans, match_strings

logger = logging.getLogger(__name__)

MATCHED, GROUP_END, STRING_MATCHED = 1, 2, 4  # flags of a piece
_CHUNK = 4096  # texts tokenised at once: bounds the memory of a worker


@dataclass(frozen=True)
class Side:
    """The pieces of many texts under one tokenizer, end to end."""

    ids: NDArray[Any]  # [total] uint16 or uint32
    flags: NDArray[np.uint8]  # [total]
    starts: Ints  # [texts + 1]

    def text(self, index: int) -> slice:
        """Return where the pieces of a text lie."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))


@dataclass(frozen=True)
class Shard:
    """Aligned texts of one corpus file; both sides may be the same object."""

    teacher: Side
    student: Side

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.student.starts) - 1

    @classmethod
    def open(cls, folder: Path) -> "Shard":
        """Map the arrays of `folder` without reading them."""
        sides = []
        for name in ("teacher", "student"):
            ids, flags = (
                np.load(folder / f"{name}-{part}.npy", mmap_mode="r") for part in ("ids", "flags")
            )
            sides.append(Side(ids, flags, np.load(folder / f"{name}-starts.npy")))
        return cls(sides[0], sides[1])


@dataclass(frozen=True)
class ShardCounts:
    """What became of the texts of one shard."""

    texts: int
    cut: int  # texts that were cut to max_length; the rest of them is not in the shard
    teacher_pieces: int
    student_pieces: int
    matched: int
    groups: int


def build_shards(
    corpus: Path,
    out: Path,
    *,
    teacher: Path,
    student: Path,
    max_length: int,
    processes: int = 1,
    strings: bool = False,
    limit: int = 0,
) -> dict[str, int]:
    """Write one folder of arrays for each corpus file, and `out/shards.json` with the sums.

    `teacher` and `student` are tokenizer.json files, `max_length` counts pieces with specials on
    either side; `strings` adds the published string matching (slow, for comparison); `limit` takes
    so many training files at most (0: all).
    """
    files = sorted(corpus.glob("*.txt"))
    if limit:
        held_out = [f for f in files if not f.name.startswith("train")]
        files = [f for f in files if f not in held_out][:limit] + held_out
    if not files:
        raise InputError(f"{corpus}: no .txt files of a corpus stage")
    jobs = [(f, out / f.stem, teacher, student, max_length, strings) for f in files]
    totals: dict[str, int] = {}
    # Fresh processes: tokenizers keeps a thread pool that does not survive a fork.
    with ProcessPoolExecutor(max(processes, 1), mp_context=get_context("spawn")) as pool:
        results = pool.map(_build_one, jobs)
        for counts in tqdm(results, total=len(jobs), desc="shards", unit="file", disable=None):
            for key, value in vars(counts).items():
                totals[key] = totals.get(key, 0) + value
    (out / "shards.json").write_text(json.dumps(totals, indent=1) + "\n", encoding="utf-8")
    return totals


def _build_one(job: tuple[Path, Path, Path, Path, int, bool]) -> ShardCounts:
    file, folder, teacher_file, student_file, max_length, strings = job
    teacher = Tokenizer.from_file(str(teacher_file))
    same = teacher_file == student_file
    student = teacher if same else Tokenizer.from_file(str(student_file))
    with file.open(encoding="utf-8", newline="\n") as lines:
        parts = []
        while texts := [line.rstrip("\n") for _, line in zip(range(_CHUNK), lines)]:  # noqa: B905
            parts.append(
                align_texts(texts, teacher, student, max_length=max_length, strings=strings)
            )
    folder.mkdir(parents=True, exist_ok=True)
    for name, sides in (("teacher", [p[0] for p in parts]), ("student", [p[1] for p in parts])):
        joined = _join(sides)
        size = (teacher if name == "teacher" else student).get_vocab_size()
        small = np.uint16 if size <= 1 << 16 else np.uint32
        np.save(folder / f"{name}-ids.npy", joined.ids.astype(small))
        np.save(folder / f"{name}-flags.npy", joined.flags)
        np.save(folder / f"{name}-starts.npy", joined.starts)
    shard = Shard.open(folder)
    return ShardCounts(
        texts=len(shard),
        cut=sum(p[2] for p in parts),
        teacher_pieces=len(shard.teacher.ids),
        student_pieces=len(shard.student.ids),
        matched=int((shard.student.flags & MATCHED).sum() // MATCHED),
        groups=int(((shard.student.flags & GROUP_END) > 0).sum()),
    )


def _join(sides: Sequence[Side]) -> Side:
    if not sides:
        return Side(np.zeros(0, np.int64), np.zeros(0, np.uint8), np.zeros(1, np.int64))
    shifts = np.cumsum([0] + [int(s.starts[-1]) for s in sides])
    starts = [s.starts[:-1] + shift for s, shift in zip(sides, shifts, strict=False)]
    return Side(
        np.concatenate([s.ids for s in sides]),
        np.concatenate([s.flags for s in sides]),
        np.concatenate([*starts, shifts[-1:]]),
    )


def align_texts(
    texts: Sequence[str],
    teacher: Tokenizer,
    student: Tokenizer,
    *,
    max_length: int,
    strings: bool = False,
) -> tuple[Side, Side, int]:
    """Tokenise and align many texts at once; return both sides and how many texts were cut."""
    # Texts lie end to end on one character axis, each [CLS] and [SEP] on a place of its own.
    sizes = np.array([len(t) + 2 for t in texts], dtype=np.int64)
    bases = np.cumsum(sizes) - sizes
    t_ids, t_spans, t_starts = _lay_out(teacher, texts, bases, sizes)
    if student is teacher:
        s_ids, s_spans, s_starts = t_ids, t_spans, t_starts
    else:
        s_ids, s_spans, s_starts = _lay_out(student, texts, bases, sizes)
    found = align_spans(t_spans, s_spans)
    sides = []
    for ids, starts, matched, group in (
        (t_ids, t_starts, found.teacher_matched, found.teacher_group),
        (s_ids, s_starts, found.student_matched, found.student_group),
    ):
        flags = matched.astype(np.uint8) * np.uint8(MATCHED)
        ends = np.ones(len(group), dtype=bool)
        ends[:-1] = group[1:] != group[:-1]
        flags |= ends.astype(np.uint8) * np.uint8(GROUP_END)
        sides.append(Side(ids, flags, starts))
    t_side, s_side, cut = _cut(sides[0], sides[1], max_length=max_length)
    if strings:  # of what is left: a pair that a cut parts would shift all that follow
        _flag_strings(t_side, s_side, teacher, student)
    return t_side, s_side, cut


def _lay_out(
    tokenizer: Tokenizer, texts: Sequence[str], bases: Ints, sizes: Ints
) -> tuple[Ints, Ints, Ints]:
    encodings = tokenizer.encode_batch(texts)
    ids = [e.ids for e in encodings]
    starts = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum([len(i) for i in ids], out=starts[1:])
    flat = np.fromiter(chain.from_iterable(ids), dtype=np.int64, count=int(starts[-1]))
    pairs = chain.from_iterable(chain.from_iterable(e.offsets for e in encodings))
    spans = np.fromiter(pairs, dtype=np.int64, count=2 * len(flat)).reshape(-1, 2) + 1
    spans[starts[:-1]] = (0, 1)  # [CLS]
    spans[starts[1:] - 1] = np.stack([sizes - 1, sizes], axis=1)  # [SEP]
    return flat, spans + np.repeat(bases, np.diff(starts))[:, None], starts


def _flag_strings(
    teacher_side: Side, student_side: Side, teacher: Tokenizer, student: Tokenizer
) -> None:
    for index in range(len(teacher_side.starts) - 1):
        t, s = teacher_side.text(index), student_side.text(index)
        pairs = match_strings(
            [teacher.id_to_token(int(i)) for i in teacher_side.ids[t]],
            [student.id_to_token(int(i)) for i in student_side.ids[s]],
        )
        for t_position, s_position in pairs:
            teacher_side.flags[t.start + t_position] |= STRING_MATCHED
            student_side.flags[s.start + s_position] |= STRING_MATCHED


def _cut(teacher: Side, student: Side, *, max_length: int) -> tuple[Side, Side, int]:
    """Cut long texts after the last group that fits on both sides, and close them with [SEP]."""
    lengths = np.maximum(np.diff(teacher.starts), np.diff(student.starts))
    long = np.flatnonzero(lengths > max_length)
    if not len(long):
        return teacher, student, 0
    keep = [np.ones(len(side.ids), dtype=bool) for side in (teacher, student)]
    for index in long.tolist():
        ends = []
        for side in (teacher, student):
            flags = side.flags[side.text(index)][:-1]  # without [SEP]
            ends.append(np.flatnonzero(flags & GROUP_END) + 1)
        groups = min(int(np.searchsorted(e, max_length - 1, side="right")) for e in ends)
        for side, mask, end in zip((teacher, student), keep, ends, strict=True):
            place = side.text(index)
            mask[place.start + int(end[groups - 1]) : place.stop - 1] = False
    cut = []
    for side, mask in zip((teacher, student), keep, strict=True):
        kept = np.concatenate([[0], np.cumsum(mask)])
        cut.append(Side(side.ids[mask], side.flags[mask], kept[side.starts]))
    return cut[0], cut[1], len(long)


def iter_shards(folder: Path, split: str) -> Iterator[Shard]:
    """Open the shards of a split (`train` or `valid`) in order."""
    folders = sorted(p for p in folder.glob(f"{split}*") if p.is_dir())
    if not folders:
        raise InputError(f"{folder}: no {split} shards: run `rubert-lite train shards` first")
    for path in folders:
        yield Shard.open(path)
