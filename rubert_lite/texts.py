"""Texts of a file or of standard input: one a line, or a field of JSON lines; UTF-8."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from .errors import InputError


def read_texts(source: str, *, fields: tuple[str, ...] = ()) -> Iterator[Any]:
    """Yield the texts of a file ("-" is standard input), in order, none left out.

    Without `fields` a line is a text, an empty one too; with one, a line is a JSON object and the
    text is that field of it; with two, a pair of texts. Raises InputError naming the line.
    """
    name = "standard input" if source == "-" else source
    with _opened(source) as file:
        for number, data in enumerate(file, start=1):
            where = f"{name}, line {number}"
            line = _decoded(data, where=where, first=number == 1)
            yield _parsed(line, fields, where=where) if fields else line


@contextmanager
def _opened(source: str) -> Iterator[IO[bytes]]:
    if source == "-":
        if sys.stdin is None:
            raise InputError("standard input is closed: name a file")
        yield sys.stdin.buffer
        return
    try:
        file = open(source, "rb")  # noqa: SIM115 - closed below; errors of the caller pass
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
