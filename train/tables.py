"""Read files of several columns (tsv with a header, jsonl, parquet) as a stream of rows."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rubert_lite.errors import InputError

from .reading import FORMATS, Line, open_parquet, read_texts


@dataclass(frozen=True)
class Row:
    """One record: its values by column, or the problem that kept it from being read."""

    place: str  # file and line or row number, for messages
    values: Mapping[str, str] | None
    problem: str | None = None


def read_rows(path: str | Path, columns: Sequence[str]) -> Iterator[Row]:
    """Stream the named columns of a .tsv, .jsonl or .parquet file (.gz, .xz, .zst may follow).

    In any other file a line is the value of every column: plain text. Values are strings. A broken
    row comes out as its problem; a file without one of the columns raises InputError.
    """
    path = Path(path)
    suffixes = [s.lower() for s in path.suffixes]
    kind = next((s for s in suffixes if s in (*FORMATS, ".tsv")), ".txt")
    if kind == ".parquet":
        yield from _parquet(path, columns)
        return
    lines = read_texts(path, field=None)
    if kind == ".tsv":
        yield from _tsv(lines, path, columns)
    elif kind == ".jsonl":
        yield from (_object(line, columns) for line in lines if line.text is None or line.text)
    else:
        if len(set(columns)) > 1:
            raise InputError(
                f"{path}: {' and '.join(sorted(set(columns)))}: expected a file of columns, .tsv"
                " with a header line, .jsonl or .parquet"
            )
        for line in lines:
            values = None if line.text is None else dict.fromkeys(columns, line.text)
            yield Row(line.place, values, line.problem)


def _tsv(lines: Iterator[Line], path: Path, columns: Sequence[str]) -> Iterator[Row]:
    first = next(lines, None)
    header = (first.text or "").split("\t") if first else []
    _check_columns(path, columns, header)
    places = [header.index(c) for c in columns]
    for line in lines:
        if line.text is None:
            yield Row(line.place, None, line.problem)
            continue
        cells = line.text.split("\t")
        if len(cells) != len(header):
            yield Row(line.place, None, f"{len(cells)} cells, the header has {len(header)}")
            continue
        yield Row(line.place, {c: cells[i] for c, i in zip(columns, places, strict=True)})


def _object(line: Line, columns: Sequence[str]) -> Row:
    if line.text is None:
        return Row(line.place, None, line.problem)
    try:
        record = json.loads(line.text)
    except (json.JSONDecodeError, RecursionError) as error:
        return Row(line.place, None, f"not JSON: {error}")
    if not isinstance(record, dict):
        return Row(line.place, None, f"a JSON {type(record).__name__}, expected an object")
    return _strings(line.place, record, columns)


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    with open_parquet(path) as table:
        _check_columns(path, columns, table.schema_arrow.names)
        number = 0
        for batch in table.iter_batches(batch_size=4096, columns=list(dict.fromkeys(columns))):
            for record in batch.to_pylist():
                number += 1
                yield _strings(f"{path}:{number}", record, columns)


def _strings(place: str, record: Mapping[str, Any], columns: Sequence[str]) -> Row:
    for column in columns:
        if not isinstance(record.get(column), str | int | float):
            return Row(place, None, f"no text or number under {column!r}")
    return Row(place, {c: str(record[c]) for c in columns})


def _check_columns(path: Path, columns: Sequence[str], found: Sequence[str]) -> None:
    for column in columns:
        if column not in found:
            raise InputError(f"{path}: no column {column!r}, the file has {', '.join(found)}")
