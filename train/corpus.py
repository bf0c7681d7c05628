"""Clean, deduplicate and split text files into corpus shards; memory does not grow with the corpus.

Two passes over the disk. The first cleans each text and appends it to the bucket that its hash
names; the second drops repeats bucket by bucket. So equal texts always meet, only one bucket is in
memory at a time, and what comes out is already shuffled - by a hash, hence in the same order
wherever it is run.
"""

import glob
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from tqdm import tqdm

from rubert_lite.errors import InputError

from .corpus_text import clean_text, is_valid, split_text, text_hash
from .held_out import HeldOut
from .reading import read_texts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Text files that share a name, a licence and a format."""

    name: str
    files: tuple[str, ...]  # paths or patterns; `-` is standard input
    license: str
    field: str = "text"


@dataclass(frozen=True)
class Cleaning:
    """What is kept of a text, and how the texts are split."""

    min_chars: int = 3
    max_chars: int = (
        400  # longer texts are cut at the end of a sentence or word, nothing is dropped
    )
    valid_share: float = 0.005  # of the texts, chosen by hash
    max_broken_share: float = 0.01  # of a source's lines; above it the stage stops
    buckets: int = 64
    exclude_whole: bool = True  # a text above max_chars is looked up whole, too


@dataclass
class SourceReport:
    """Counts of one source."""

    name: str
    license: str
    files: int = 0
    lines: int = 0
    texts: int = 0  # after cutting long ones
    kept: int = 0  # after deduplication
    duplicates: int = 0
    excluded: int = 0  # texts of the held-out files
    too_short: int = 0
    broken: int = 0
    chars: int = 0  # of the kept texts
    broken_places: list[str] = field(default_factory=list)  # the first ten


def build_corpus(
    sources: Sequence[Source], out: Path, *, cleaning: Cleaning, exclude: Sequence[str] = ()
) -> list[SourceReport]:
    """Write `out/train-NNN.txt`, `out/valid.txt` (one text a line) and `out/corpus.json`.

    No text that stands in the files `exclude`, or has a long sentence of theirs, is written (see
    `HeldOut`): what models are scored on stays unseen.
    Raises InputError when nothing is left or a source has more broken lines than
    `max_broken_share`.
    """
    reports = [SourceReport(s.name, s.license) for s in sources]
    with tempfile.TemporaryDirectory(dir=out, prefix="buckets-") as folder:
        paths = [Path(folder) / f"{i:03d}" for i in range(cleaning.buckets)]
        files = [p.open("w", encoding="utf-8") for p in paths]
        try:
            held_out = HeldOut(exclude)
            for index, (source, report) in enumerate(zip(sources, reports, strict=True)):
                _scatter(source, index, report, files, held_out, cleaning=cleaning)
        finally:
            for file in files:
                file.close()
        _gather(paths, out, reports, valid_share=cleaning.valid_share)
    if not any(r.kept for r in reports):
        raise InputError("corpus: no text is left of " + ", ".join(s.name for s in sources))
    summary = json.dumps([asdict(r) for r in reports], ensure_ascii=False, indent=1)
    (out / "corpus.json").write_text(summary + "\n", encoding="utf-8")
    return reports


def expand(patterns: Sequence[str], name: str) -> list[str]:
    """List the files of a source; a pattern that matches nothing is an InputError."""
    paths: list[str] = []
    for pattern in patterns:
        plain = pattern == "-" or Path(pattern).is_file()  # whose name may hold [ or *
        found = [pattern] if plain else sorted(glob.glob(pattern)) or [pattern]
        if not plain and found == [pattern] and glob.has_magic(pattern):
            raise InputError(
                f"{pattern}: no file matches ({name!r}), seen from {Path.cwd()}: `--check` lists"
                " all that are not there"
            )
        paths += found
    return paths


def _scatter(
    source: Source,
    index: int,
    report: SourceReport,
    files: Sequence[IO[str]],
    held_out: HeldOut,
    *,
    cleaning: Cleaning,
) -> None:
    """Clean the texts of one source into the bucket files as `hash<TAB>source<TAB>text` lines."""
    paths = expand(source.files, source.name)
    report.files = len(paths)
    total = sum(Path(p).stat().st_size for p in paths if Path(p).is_file())
    with tqdm(total=total, desc=source.name, unit="B", unit_scale=True, disable=None) as bar:
        for path in paths:
            for line in read_texts(path, field=source.field, on_bytes=bar.update):
                report.lines += 1
                if line.text is None:
                    _note_broken(report, f"{line.place}: {line.problem}")
                    continue
                whole = clean_text(line.text)
                # Parts of a held-out text, but for its long sentences, are not told from others.
                long = cleaning.exclude_whole and len(whole) > cleaning.max_chars
                if long and whole in held_out:
                    report.texts += 1
                    report.excluded += 1
                    continue
                for text in split_text(whole, max_chars=cleaning.max_chars):
                    report.texts += 1
                    if len(text) < cleaning.min_chars:
                        report.too_short += 1
                        continue
                    if text in held_out:
                        report.excluded += 1
                        continue
                    _put(files, index, text)
    share = report.broken / max(report.lines, 1)
    if report.broken and share > cleaning.max_broken_share:
        places = "\n  ".join(report.broken_places)
        raise InputError(
            f"source {source.name!r}: {report.broken} of {report.lines} lines broken ({share:.1%},"
            f" at most {cleaning.max_broken_share:.1%} may be); if the text is in another encoding:"
            f" iconv -f cp1251 -t utf-8 FILE; the first places:\n  {places}"
        )
    if report.broken:
        logger.warning(
            "source %r: %d broken lines left out, the first: %s",
            source.name,
            report.broken,
            report.broken_places[0],
        )


def _put(files: Sequence[IO[str]], index: int, text: str) -> None:
    key = text_hash(text)
    files[key % len(files)].write(f"{key:016x}\t{index}\t{text}\n")


def _note_broken(report: SourceReport, place: str) -> None:
    report.broken += 1
    if len(report.broken_places) < 10:
        report.broken_places.append(place)


def _gather(
    paths: list[Path], out: Path, reports: list[SourceReport], *, valid_share: float
) -> None:
    """Drop repeats bucket by bucket (the first source keeps a text) and write the split."""
    with (out / "valid.txt").open("w", encoding="utf-8") as valid:
        for number, path in enumerate(tqdm(paths, desc="deduplicate", unit="bucket", disable=None)):
            seen: set[str] = set()
            with (out / f"train-{number:03d}.txt").open("w", encoding="utf-8") as train:
                for line in _records(path):
                    key, index, text = line
                    report = reports[index]
                    # The hash orders and splits; equality is decided by the text itself.
                    if text in seen:
                        report.duplicates += 1
                        continue
                    seen.add(text)
                    report.kept += 1
                    report.chars += len(text)
                    target = valid if is_valid(key, valid_share) else train
                    target.write(text + "\n")
            path.unlink()


def _records(path: Path) -> Iterator[tuple[int, int, str]]:
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            key, index, text = line.rstrip("\n").split("\t", 2)
            yield int(key, 16), int(index), text
