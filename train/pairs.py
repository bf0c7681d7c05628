"""Collect pairs of texts: what a sentence teacher reads, and what the student reads for it.

Parallel text gives two sides; plain text gives the same text twice.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from rubert_lite.errors import InputError

from .corpus import expand
from .corpus_text import clean_text, is_valid, text_hash
from .held_out import HeldOut
from .tables import read_rows


class TextPair(NamedTuple):
    """A text for the teacher, one for the student that means the same, and their source."""

    teacher: str
    student: str
    source: int  # index in the list of sources


@dataclass(frozen=True)
class PairSource:
    """Files of pairs that share a name, a licence and their columns."""

    name: str
    files: tuple[str, ...]  # tsv with a header, jsonl or parquet; or plain text, read twice
    license: str
    teacher_field: str = "text"
    student_field: str = "text"
    only: Mapping[str, Sequence[str]] = field(default_factory=dict)  # column -> values to keep
    without: Mapping[str, Sequence[str]] = field(default_factory=dict)  # column -> to leave out
    matching: str = ""  # a regular expression that must be found in the student's text
    cap: int = 0  # pairs of one value of `cap_by` at most; 0: no limit
    cap_by: str = ""
    limit: int = 0  # pairs that are taken at most, the first ones; 0: no limit
    share: float = 1.0  # of the pairs that is taken, by hash


@dataclass(frozen=True)
class PairCleaning:
    """What is kept, and what is made of it."""

    min_chars: int = 2
    max_chars: int = 500  # of either side; longer pairs are left out, for they cannot be cut alike
    max_broken_share: float = 0.01
    # Besides: passages of joined pairs, as many as this share of the pairs. Their texts are long.
    passages: float = 0.0
    valid_share: float = 0.0  # of the pairs that are held out later: in no passage
    seed: int = 42


@dataclass
class PairReport:
    """Counts of one source."""

    name: str
    license: str
    lines: int = 0
    kept: int = 0
    filtered: int = 0  # by `only`, `without`, `matching` and `share`
    capped: int = 0
    length: int = 0  # too short or too long
    duplicates: int = 0
    excluded: int = 0  # one side stands in a held-out file
    passages: int = 0
    broken: int = 0
    broken_places: list[str] = field(default_factory=list)  # the first ten


_PASSAGE = (2, 6)  # pairs


def read_pairs(
    sources: Sequence[PairSource],
    reports: Sequence[PairReport],
    *,
    cleaning: PairCleaning,
    exclude: Sequence[str] = (),
) -> Iterator[TextPair]:
    """Yield cleaned pairs, each once, and count in the report of each source.

    No pair of which a side stands in the files `exclude`, or has a long sentence of theirs, comes
    out (see `HeldOut`). Raises InputError when a source has too many broken lines, or none is left.
    """
    held_out = HeldOut(exclude)
    seen: set[int] = set()
    for index, (source, report) in enumerate(zip(sources, reports, strict=True)):
        chance = random.Random(f"{cleaning.seed} {source.name}")
        passage: list[TextPair] = []
        wanted = 0
        for pair in _source_pairs(source, index, report, cleaning):
            key = text_hash(f"{pair.teacher}\t{pair.student}")
            if not is_valid(key, source.share):
                report.filtered += 1
                continue
            if any(side in held_out for side in pair[:2]):
                report.excluded += 1
                continue
            if key in seen:
                report.duplicates += 1
                continue
            seen.add(key)
            report.kept += 1
            yield pair
            if report.kept == source.limit:
                break
            if is_valid(text_hash(pair.student), cleaning.valid_share):
                continue  # held out by `write_items`: a passage would show it
            if not wanted and chance.random() < cleaning.passages:
                wanted = chance.randint(*_PASSAGE)
            if wanted:
                passage.append(pair)
                if len(passage) == wanted:
                    report.passages += 1
                    yield _join(passage)
                    passage, wanted = [], 0
        if report.broken > cleaning.max_broken_share * max(report.lines, 1):
            raise InputError(
                f"source {source.name!r}: {report.broken} of {report.lines} lines are broken, the"
                f" first: {report.broken_places[0]}"
            )
    if not any(r.kept for r in reports):
        raise InputError(
            "no pair is left: check `files`, `only` and `without` of the sources, and their columns"
        )


def teacher_texts(
    sources: Sequence[PairSource], exclude: Sequence[str], max_chars: int
) -> Iterator[str]:
    """Yield what the teacher reads of the pairs, cleaned as for the pairs stage."""
    reports = [PairReport(s.name, s.license) for s in sources]
    cleaning = PairCleaning(max_chars=max_chars)
    for pair in read_pairs(sources, reports, cleaning=cleaning, exclude=exclude):
        yield pair.teacher


def _join(pairs: Sequence[TextPair]) -> TextPair:
    teacher = " ".join(p.teacher for p in pairs)
    return TextPair(teacher, " ".join(p.student for p in pairs), pairs[0].source)


def _source_pairs(
    source: PairSource, index: int, report: PairReport, cleaning: PairCleaning
) -> Iterator[TextPair]:
    columns = [source.teacher_field, source.student_field, *source.only, *source.without]
    if source.cap_by:
        columns.append(source.cap_by)
    taken: Counter[str] = Counter()
    for path in expand(source.files, source.name):
        for row in read_rows(path, columns):
            report.lines += 1
            if row.values is None:
                report.broken += 1
                if len(report.broken_places) < 10:
                    report.broken_places.append(f"{row.place}: {row.problem}")
                continue
            values = row.values
            if (
                any(values[c] not in kept for c, kept in source.only.items())
                or any(values[c] in left for c, left in source.without.items())
                or (
                    source.matching and not re.search(source.matching, values[source.student_field])
                )
            ):
                report.filtered += 1
                continue
            group = values[source.cap_by] if source.cap_by else ""
            if source.cap and taken[group] >= source.cap:
                report.capped += 1
                continue
            sides = [clean_text(values[f]) for f in (source.teacher_field, source.student_field)]
            if not all(cleaning.min_chars <= len(s) <= cleaning.max_chars for s in sides):
                report.length += 1
                continue
            taken[group] += 1
            yield TextPair(sides[0], sides[1], index)


def write_pairs(
    sources: Sequence[PairSource],
    out: Path,
    *,
    cleaning: PairCleaning,
    exclude: Sequence[str] = (),
) -> list[PairReport]:
    """Write `out/teacher.txt` and `out/student.txt`, a text a line, and `out/pairs.json`.

    `out/sources.npy` [pairs] uint8 says which of the sources each pair is of.
    """
    reports = [PairReport(s.name, s.license) for s in sources]
    numbers = bytearray()
    with (
        (out / "teacher.txt").open("w", encoding="utf-8") as teacher,
        (out / "student.txt").open("w", encoding="utf-8") as student,
    ):
        found = read_pairs(sources, reports, cleaning=cleaning, exclude=exclude)
        for pair in tqdm(found, desc="pairs", unit="pair", disable=None):
            teacher.write(pair.teacher + "\n")
            student.write(pair.student + "\n")
            numbers.append(pair.source)
    np.save(out / "sources.npy", np.frombuffer(numbers, dtype=np.uint8))
    text = json.dumps([asdict(r) for r in reports], ensure_ascii=False, indent=1)
    (out / "pairs.json").write_text(text + "\n", encoding="utf-8")
    return reports


def read_lines(path: Path) -> Iterator[str]:
    """Yield what `write_pairs` wrote, text by text."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            yield line.rstrip("\n")
