"""Texts of a file or of standard input: lines, fields of JSON lines, columns of parquet."""

import bz2
import gzip
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .errors import InputError

_OPENERS: dict[str, Callable[[str], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_JSON_LINES, _TABLES = (".jsonl", ".ndjson", ".json"), (".csv", ".tsv")
_ROWS = 1024  # of a parquet file read at once


def read_texts(source: str, *, fields: tuple[str, ...] = ()) -> Iterator[Any]:
    """Yield the texts of a file ("-" is standard input), in order, none left out.

    Without `fields` a line is a text, an empty one too; with one, a line is a JSON object and the
    text is that field of it; with two, a pair of texts. Of a .parquet file, fields are columns
    ("text" without any). Files in .gz, .bz2 and .xz are read as they are. Raises InputError naming
    the line or row.
    """
    if source.lower().endswith(".parquet"):
        yield from _columns(source, fields or ("text",))
        return
    name = "standard input" if source == "-" else source
    if not fields:
        _check_plain(source)
    with _opened(source) as file:
        for number, data in enumerate(_lines(file, name), start=1):
            where = f"{name}, line {number}"
            line = _decoded(data, where=where, first=number == 1)
            yield _parsed(line, fields, where=where) if fields else line


def _check_plain(source: str) -> None:
    """Refuse to read a table line by line: braces and commas would pass for text."""
    compressed = Path(source).suffix.lower() in _OPENERS
    kind = Path(Path(source).stem if compressed else source).suffix.lower()
    if kind in _JSON_LINES:
        raise InputError(f"{source}: JSON lines: name the field of the text, such as --field text")
    if kind in _TABLES:
        raise InputError(
            f"{source}: a table, expected plain text, JSON lines (--field) or parquet: convert it,"
            " or feed it through standard input (-) to read its lines as they are"
        )


def _lines(file: IO[bytes], name: str) -> Iterator[bytes]:
    try:
        yield from file
    except (
        OSError,
        EOFError,
        lzma.LZMAError,
        zlib.error,
    ) as error:
        # Of a broken compressed file, too.
        raise InputError(f"{name}: cannot be read ({error})") from error


def _columns(source: str, fields: tuple[str, ...]) -> Iterator[Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(f"{source}: parquet needs pyarrow: pip install pyarrow") from error
    try:
        file = parquet.ParquetFile(source)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{source}: cannot be read as parquet ({error})") from error
    with file:
        names = file.schema_arrow.names
        for field in fields:
            if names.count(field) != 1:
                problem = "no column" if field not in names else "more than one column"
                raise InputError(
                    f"{source}: {problem} {field!r}, it has {', '.join(names)}: use --field"
                )
        batches = file.iter_batches(_ROWS, columns=list(fields))
        row = 0
        while True:
            try:
                batch = next(batches, None)
                columns = [] if batch is None else [batch.column(f).to_pylist() for f in fields]
            except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
                raise InputError(f"{source}: cannot be read after row {row} ({error})") from error
            if batch is None:
                return
            for values in zip(*columns, strict=True):
                row += 1
                wrong = [v for v in values if not isinstance(v, str)]
                if wrong:
                    kind = type(wrong[0]).__name__
                    raise InputError(f"{source}, row {row}: {kind}, expected a string")
                yield values[0] if len(values) == 1 else values


@contextmanager
def _opened(source: str) -> Iterator[IO[bytes]]:
    if source == "-":
        if sys.stdin is None:
            raise InputError("standard input is closed: name a file")
        yield sys.stdin.buffer
        return
    opener = _OPENERS.get(Path(source).suffix.lower())
    try:
        # Closed below; errors of the caller pass.
        file: Any = opener(source) if opener else open(source, "rb")  # noqa: SIM115
    except FileNotFoundError as error:
        raise InputError(
            f"{source}: no such file: a text itself goes through standard input (echo TEXT |"
            " rubert-lite ... -)"
        ) from error
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from error
    with file:
        yield file


def _decoded(data: bytes, *, where: str, first: bool) -> str:
    try:
        # Only \n ends a line: a text may hold the other separators that Unicode knows.
        line = data.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: byte 0x{data[error.start]:02x} at {error.start + 1} is not UTF-8: convert"
            " the file first, for example with iconv -f cp1251 -t utf-8"
        ) from error
    return line.removeprefix("\ufeff") if first else line


def _parsed(line: str, fields: tuple[str, ...], *, where: str) -> str | tuple[str, ...]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error}): expected an object per line") from error
    if not isinstance(values, dict):
        raise InputError(f"{where}: a JSON {type(values).__name__}, expected an object")
    found: list[str] = []
    for field in fields:
        value = values.get(field)
        if not isinstance(value, str):
            problem = "no field" if field not in values else f"{type(value).__name__} in field"
            raise InputError(f"{where}: {problem} {field!r}, expected a string")
        found.append(value)
    return found[0] if len(found) == 1 else tuple(found)
