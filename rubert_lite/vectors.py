"""Write vectors as they come, to a file that appears under its name only when it is whole."""

import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

Arrays: TypeAlias = Iterable[NDArray[Any]]


class Writer(Protocol):
    """Writes vectors, and what they are made by, to a file."""

    def __call__(self, arrays: Arrays, path: Path, metadata: Mapping[str, str], /) -> None:
        """Write them whole; InputError where that fails."""


def writer(path: Path) -> Writer:
    """Return the function that writes vectors in the format that the name of a file asks for.

    The first array tells width and type; it may have no rows, but must be there. Metadata go into
    the schema of a parquet file under "rubert_lite.", of the others into `NAME.meta.json`. Raises
    InputError before anything is computed: for another format, parquet without pyarrow, a missing
    directory.
    """
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise InputError(f"{path}: parquet needs pyarrow: pip install pyarrow") from error
    if path.suffix not in _WRITERS:
        raise InputError(f"{path}: unknown format, expected a name in {', '.join(_WRITERS)}")
    if path.is_dir():
        raise InputError(f"{path}: a directory, expected the name of a file")
    if not path.parent.is_dir():
        raise InputError(f"{path}: no directory {path.parent}: create it first")
    return _WRITERS[path.suffix]


def json_line(row: NDArray[Any]) -> str:
    """Write one vector as a JSON object; 9 digits give each float32 back exactly."""
    return '{"vector": [' + ", ".join([f"{x:.9g}" for x in row.tolist()]) + "]}\n"


def sweep(path: Path) -> None:
    """Remove what killed processes left of this output; none may be writing it."""
    path = Path(os.path.realpath(path))
    left = re.compile(rf"\.{re.escape(path.name)}(\.meta\.json)?\.[0-9a-f]{{8}}\.partial")
    for entry in path.parent.iterdir():
        if left.fullmatch(entry.name):
            entry.unlink(missing_ok=True)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    path = Path(os.path.realpath(path))  # a link stays one
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)


def _write_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    side = path.with_name(f"{path.name}.meta.json")
    with _whole(side) as partial:
        text = json.dumps(dict(metadata), ensure_ascii=False, indent=1)
        partial.write_text(text + "\n", encoding="utf-8")


def _write_npy(arrays: Arrays, path: Path, metadata: Mapping[str, str]) -> None:
    with _whole(path) as partial, partial.open("wb") as file:
        stream = iter(arrays)
        array = next(stream)
        rows = len(array)
        _npy_header(file, rows, array)
        file.write(array.tobytes())
        for array in stream:
            rows += len(array)
            file.write(array.tobytes())
        # numpy leaves room for the number of rows to grow: the header keeps its length.
        file.seek(0)
        _npy_header(file, rows, array)
    _write_metadata(path, metadata)


def _npy_header(file: IO[bytes], rows: int, like: NDArray[Any]) -> None:
    header = {
        "descr": np.lib.format.dtype_to_descr(like.dtype),
        "fortran_order": False,
        "shape": (rows, like.shape[1]),
    }
    np.lib.format.write_array_header_1_0(file, header)


def _write_jsonl(arrays: Arrays, path: Path, metadata: Mapping[str, str]) -> None:
    with _whole(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for array in arrays:
            file.writelines(json_line(row) for row in array)
    _write_metadata(path, metadata)


def _write_parquet(arrays: Arrays, path: Path, metadata: Mapping[str, str]) -> None:
    import pyarrow
    import pyarrow.parquet

    notes = {f"rubert_lite.{key}": value for key, value in metadata.items()}

    def table(array: NDArray[Any]) -> Any:
        flat = pyarrow.array(array.reshape(-1))
        column = pyarrow.FixedSizeListArray.from_arrays(flat, array.shape[1])
        return pyarrow.table({"vector": column}).replace_schema_metadata(notes)

    with _whole(path) as partial:
        stream = iter(arrays)
        first = table(next(stream))
        with pyarrow.parquet.ParquetWriter(partial, first.schema) as out:
            out.write_table(first)
            for array in stream:
                out.write_table(table(array))


_WRITERS: dict[str, Writer] = {
    ".npy": _write_npy,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
