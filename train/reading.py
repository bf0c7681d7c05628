"""Read text files of many kinds as a stream of (place, text or problem)."""

import gzip
import io
import json
import lzma
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from rubert_lite.errors import InputError

FORMATS = (".txt", ".jsonl", ".parquet")
COMPRESSIONS = (".gz", ".xz", ".zst")


@dataclass(frozen=True)
class Line:
    """One record of a file: its text, or the problem that kept it from being read."""

    place: str  # file and line or row number, for messages
    text: str | None
    problem: str | None = None


def read_texts(
    path: str | Path, *, field: str | None = "text", on_bytes: Callable[[int], None] | None = None
) -> Iterator[Line]:
    """Stream the texts of one file, or of standard input (`-`) as plain lines.

    The kind follows from the name: .txt (or anything unknown) is a text a line, .jsonl has the text
    under `field` (None: the line itself), .parquet in the column `field`; .gz, .xz and .zst may
    follow. `on_bytes` is told the growth in bytes read from disk. Broken lines come out as
    problems; a file that cannot be read at all raises InputError.
    """
    if str(path) == "-":
        yield from _lines(sys.stdin.buffer, "standard input", None)
        return
    path = Path(path)
    kind, compression = _kind(path)
    with path.open("rb") as raw:
        counted = _counting(raw, on_bytes)
        try:
            with ExitStack() as stack:
                stream = stack.enter_context(_decompressed(counted, compression))
                if kind == ".parquet":
                    # Parquet is read from its end: a packed file is unpacked beside it first.
                    if compression:
                        stream = stack.enter_context(_unpacked(stream))
                    yield from _rows(stream, path, field or "text")
                else:
                    yield from _lines(stream, str(path), field if kind == ".jsonl" else None)
        except _broken() as error:
            # The lines before the damage have been handed out; the rest of the file is one problem.
            yield Line(str(path), None, f"unreadable from here on: {error}")


def _kind(path: Path) -> tuple[str, str]:
    if path.is_dir():
        raise InputError(
            f"{path}: is a folder, expected a file: name its files, such as {path}/*.txt"
        )
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    suffixes = [s for s in map(str.lower, path.suffixes) if s in FORMATS + COMPRESSIONS]
    kind = next((s for s in suffixes if s in FORMATS), ".txt")
    return kind, next((s for s in suffixes if s in COMPRESSIONS), "")


def _counting(raw: IO[bytes], on_bytes: Callable[[int], None] | None) -> IO[bytes]:
    if on_bytes is None:
        return raw
    told = on_bytes

    class Counted(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def seekable(self) -> bool:
            return raw.seekable()

        def seek(self, offset: int, whence: int = 0) -> int:
            return raw.seek(offset, whence)

        def tell(self) -> int:
            return raw.tell()

        def readinto(self, buffer: Any) -> int:
            data = raw.read(len(buffer))
            buffer[: len(data)] = data
            told(len(data))
            return len(data)

    return io.BufferedReader(Counted(), 1 << 20)


def _decompressed(stream: IO[bytes], compression: str) -> IO[bytes]:
    if compression == ".gz":
        return cast(IO[bytes], gzip.open(stream))
    if compression == ".xz":
        return lzma.open(stream)
    if compression == ".zst":
        return io.BufferedReader(_WholeZstd(stream), 1 << 20)
    return stream


class _WholeZstd(io.RawIOBase):
    """Reads zstd and complains about a frame that ends too soon, which the library does not."""

    def __init__(self, stream: IO[bytes]) -> None:
        import zstandard

        self._stream = stream
        self._library = zstandard
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._waiting:
            if self._frame.eof:  # another frame may follow
                rest = self._frame.unused_data
                self._frame = self._library.ZstdDecompressor().decompressobj()
                self._begun = False
                data = rest or self._stream.read(1 << 17)
            else:
                data = self._stream.read(1 << 17)
            if not data:
                if self._begun:
                    raise EOFError("the compressed data end before their end mark")
                return 0
            self._begun = True
            self._waiting = self._frame.decompress(data)
        size = min(len(buffer), len(self._waiting))
        buffer[:size] = self._waiting[:size]
        self._waiting = self._waiting[size:]
        return size


@contextmanager
def _unpacked(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(stream, file)
        file.seek(0)
        yield file


def _lines(stream: IO[bytes], name: str, field: str | None) -> Iterator[Line]:
    first = True
    for number, raw in enumerate(stream, 1):
        place = f"{name}:{number}"
        if first:
            raw = raw.removeprefix(b"\xef\xbb\xbf")  # a byte order mark is not text
            first = False
        if b"\0" in raw:
            yield Line(place, None, "binary data (NUL byte)")
            continue
        try:
            text = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield Line(place, None, f"not UTF-8 (byte {raw[error.start]:#04x} at {error.start})")
            continue
        if field is None:
            yield Line(place, text)
        elif text.strip():
            yield _record(place, text, field)


def _record(place: str, line: str, field: str) -> Line:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:  # of JSON, or a number of 5,000 digits
        return Line(place, None, f"not JSON: {error}")
    if not isinstance(value, dict):
        return Line(place, None, f"a JSON {type(value).__name__}, expected an object")
    text = value.get(field)
    if not isinstance(text, str):
        return Line(
            place,
            None,
            f"no string under {field!r}: the object has {', '.join(value) or 'nothing'}",
        )
    return Line(place, text)


def _rows(stream: IO[bytes], path: Path, field: str) -> Iterator[Line]:
    with _parquet(stream, path) as table:
        if field not in table.schema_arrow.names:
            names = ", ".join(table.schema_arrow.names)
            raise InputError(f"{path}: no column {field!r}, the file has {names}")
        number = 0
        for batch in table.iter_batches(batch_size=4096, columns=[field]):
            for value in batch.column(0).to_pylist():
                number += 1
                place = f"{path}:{number}"
                if isinstance(value, str):
                    yield Line(place, value)
                else:
                    problem = f"{type(value).__name__} under {field!r}, expected a string"
                    yield Line(place, None, problem)


@contextmanager
def _parquet(stream: IO[bytes], path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        yield pyarrow.parquet.ParquetFile(stream)
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{path}: not a readable parquet file: {error}") from error


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """Open a parquet file, plain or compressed as a whole, as a pyarrow ParquetFile."""
    _, compression = _kind(path)
    with ExitStack() as stack:
        stream: IO[bytes] = stack.enter_context(path.open("rb"))
        if compression:
            packed = stack.enter_context(_decompressed(stream, compression))
            stream = stack.enter_context(_unpacked(packed))
        yield stack.enter_context(_parquet(stream, path))


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Stream the objects of a jsonl file (plain or compressed) with their places.

    Labelled data is small and precious: here a broken line is an InputError, not a count.
    """
    for line in read_texts(path, field=None):
        if line.text is None:
            raise InputError(f"{line.place}: {line.problem}")
        if not line.text.strip():
            continue
        try:
            record = json.loads(line.text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{line.place}: not JSON: {error}") from error
        if not isinstance(record, dict):
            raise InputError(f"{line.place}: a JSON {type(record).__name__}, expected an object")
        yield line.place, record


def read_whole(path: Path) -> str:
    """Return the text of a file, plain or compressed; InputError if it cannot be read."""
    _, compression = _kind(path)
    try:
        with path.open("rb") as raw, _decompressed(raw, compression) as stream:
            return stream.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except _broken() as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def _broken() -> tuple[type[Exception], ...]:
    """List what the reading of a broken compressed file raises."""
    found: tuple[type[Exception], ...] = (EOFError, OSError, lzma.LZMAError, zlib.error)
    zstandard = sys.modules.get("zstandard")  # imported where a file needs it
    more: list[type[Exception]] = [zstandard.ZstdError] if zstandard else []
    return (*found, *more)
