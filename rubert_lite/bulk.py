"""Encode a file of any length into a file of vectors; a run that was killed goes on where it was.

Rows wait in a hidden folder beside the output: `rows` (raw, appended) and `state.json` (how many of
them are safe, by which model, and a hash of their texts). The output appears, whole, at the end.
"""

import hashlib
import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .model import DType, Model
from .vectors import sweep, writer

logger = logging.getLogger(__name__)

_SAVE_ROWS = 16_384  # between two notes of how far it is
_READ_ROWS = 8192


def encode_file(
    model: Model,
    texts: Iterable[str],
    out: Path,
    *,
    truncate_dim: int | None = None,
    dtype: DType = "float32",
    restart: bool = False,
    progress: bool = False,
) -> int:
    """Write the vectors of texts to a .npy, .jsonl or .parquet file; return the number of rows.

    A call that is killed leaves `.NAME.partial` beside `out`: the same call, on the same texts,
    goes on from there; `restart` forgets it. The SHA-256 of the graph and of the tokenizer stand in
    the schema of a parquet file, else in `NAME.meta.json`. Raises InputError when the folder is of
    another call, the texts changed, or another process works on it.
    """
    write = writer(out)
    width = model.dim if truncate_dim is None else truncate_dim
    identity = {**describe(model), "width": str(width), "dtype": dtype}
    folder = out.with_name(f".{out.name}.partial")
    folder.mkdir(exist_ok=True)
    with _locked(folder), _swept(folder):
        if restart:
            (folder / "state.json").unlink(missing_ok=True)
        stream = iter(texts)
        tape = _Tape(stream)
        _resume(folder, identity, tape)
        if tape.rows:
            logger.warning("%s: going on after %d rows", folder, tape.rows)
        safe = tape.rows
        size = width * np.dtype(dtype).itemsize
        with _appended(folder / "rows", safe * size) as file:
            for rows in model.iter_encode(
                tape, truncate_dim=truncate_dim, dtype=dtype, progress=progress
            ):
                file.write(np.ascontiguousarray(rows).data)
                tape.encoded(len(rows))
                if tape.rows - safe >= _SAVE_ROWS:
                    _save(folder, identity, tape, file)
                    safe = tape.rows
            _save(folder, identity, tape, file)
        sweep(out)
        write(_stored(folder / "rows", tape.rows, width, dtype), out, identity)
        shutil.rmtree(folder)
    return tape.rows


def describe(model: Model) -> dict[str, str]:
    """Identify what vectors are made by."""
    manifest = model.package.manifest
    return {
        "model": manifest.name,
        "version": manifest.version,
        "variant": model.variant,
        "graph_sha256": manifest.files[manifest.variants[model.variant]].sha256,
        "tokenizer_sha256": manifest.tokenizer_sha256,
    }


@dataclass
class _Tape:
    """Hands texts on and remembers, by a hash, those whose vectors are written."""

    stream: Iterator[str]
    rows: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    waiting: deque[bytes] = field(default_factory=deque)

    def __iter__(self) -> Iterator[str]:
        for text in self.stream:
            self.waiting.append(_hash(text))
            yield text

    def encoded(self, count: int) -> None:
        for _ in range(count):
            self.digest.update(self.waiting.popleft())
        self.rows += count


def _hash(text: Any) -> bytes:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else b""
    return hashlib.sha256(data).digest()  # what is no text is refused where it is encoded


def _resume(folder: Path, identity: Mapping[str, str], tape: _Tape) -> None:
    """Read past the texts whose rows are safe."""
    remedy = "restart (--restart on the command line), or give the output another name"
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        rows, digest = int(state["rows"]), str(state["texts_sha256"])
        before = dict(state["by"])
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: cannot be read ({error}): {remedy}") from error
    for key, value in identity.items():
        if before.get(key) != value:
            raise InputError(
                f"{folder}: begun with {key} {before.get(key)}, now it is {value}: {remedy}"
            )
    for _ in tape:
        tape.encoded(1)
        if tape.rows == rows:
            break
    if tape.rows < rows or tape.digest.hexdigest() != digest:
        raise InputError(f"{folder}: its {rows} rows are of other texts than these: {remedy}")


@contextmanager
def _appended(path: Path, size: int) -> Iterator[IO[bytes]]:
    """Open a file behind its first `size` bytes; what follows them is dropped."""
    with path.open("ab") as file:
        if file.tell() < size:
            raise InputError(f"{path}: {file.tell()} bytes, expected at least {size}: restart")
        file.truncate(size)
        yield file


def _save(folder: Path, identity: Mapping[str, str], tape: _Tape, file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
    state = {"rows": tape.rows, "texts_sha256": tape.digest.hexdigest(), "by": dict(identity)}
    partial = folder / "state.partial"
    partial.write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
    os.replace(partial, folder / "state.json")


def _stored(path: Path, rows: int, width: int, dtype: DType) -> Iterator[NDArray[Any]]:
    with path.open("rb") as file:
        yield np.empty((0, width), dtype=dtype)
        for start in range(0, rows, _READ_ROWS):
            count = min(_READ_ROWS, rows - start)
            data = file.read(count * width * np.dtype(dtype).itemsize)
            yield np.frombuffer(data, dtype=dtype).reshape(count, width)


@contextmanager
def _swept(folder: Path) -> Iterator[None]:
    """Leave nothing behind that nobody can go on from."""
    try:
        yield
    finally:
        if not (folder / "state.json").exists():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes out; the system lets go of the lock of a killed one."""
    with (folder / "lock").open("wb") as file:
        try:
            import fcntl
        except ImportError:  # not on Windows
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{folder}: another process is writing it: wait for it") from error
        yield
