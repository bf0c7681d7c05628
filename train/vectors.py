"""Vectors of sentence teachers, computed once and kept on disk.

A cache folder belongs to one teacher. It holds parts of up to 16,384 vectors in float16 and the
hashes of their texts; a part is written whole, so a run that was killed goes on after the last one.
"""

import logging
from collections.abc import Iterator
from itertools import compress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rubert_lite.errors import InputError

from .corpus_text import text_hash
from .encoders import Encode
from .pairs import read_lines
from .parallel import locked

logger = logging.getLogger(__name__)

_PART = 16_384
Side = Literal["teacher", "student"]  # of a pair

_VECTORS, _KEYS = ".vectors.npy", ".keys.npy"


class VectorCache:
    """The vectors of one teacher by the hash of their text."""

    def __init__(self, folder: Path) -> None:
        """Open a folder, or begin one."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._read()

    def _read(self) -> None:
        names = self._names()
        self._parts = [np.load(self.folder / f"{n}{_VECTORS}", mmap_mode="r") for n in names]
        keys = [np.load(self.folder / f"{n}{_KEYS}") for n in names]
        joined = np.concatenate(keys) if keys else np.empty(0, dtype=np.uint64)
        self._order = np.argsort(joined, kind="stable")
        self._keys = joined[self._order]
        self.keys: NDArray[np.uint64] = joined  # the hash of each row's text
        self._starts = np.cumsum([0] + [len(k) for k in keys])

    def _names(self) -> list[str]:
        # A part counts once its keys are there: they are written last. Hidden files are halves.
        found = sorted(self.folder.glob(f"[!.]*{_KEYS}"))
        return [path.name.removesuffix(_KEYS) for path in found]

    def __len__(self) -> int:
        """Return the number of vectors."""
        return int(self._starts[-1])

    @property
    def width(self) -> int:
        """Width of the vectors; 0 while there are none."""
        return int(self._parts[0].shape[1]) if self._parts else 0

    def rows(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the row of each text hash [n], -1 where there is none."""
        if not len(self._keys):
            return np.full(len(keys), -1, dtype=np.int64)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        rows: NDArray[np.int64] = np.where(
            self._keys[places] == keys, self._order[places], -1
        ).astype(np.int64)
        return rows

    def rows_of(self, texts: Iterator[str]) -> NDArray[np.int64]:
        """Return the row of each text, -1 where there is none."""
        return self.rows(hashes(texts))

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return vectors [n, width] by row."""
        out = np.empty((len(rows), self.width), dtype=np.float16)
        parts = np.searchsorted(self._starts, rows, side="right") - 1
        for part in np.unique(parts):
            chosen = parts == part
            out[chosen] = self._parts[part][rows[chosen] - self._starts[part]]
        return out

    def fill(self, texts: Iterator[str], encode: Encode, *, total: int | None = None) -> int:
        """Compute the vectors of texts that have none yet; return how many.

        Texts are read once; sorted by length within a part they fill batches evenly. Another
        process that fills the same folder is waited for. Raises InputError for a vector that
        float16 cannot hold; the parts before it stay.
        """
        with locked(self.folder):
            self._read()
            return self._fill(texts, encode, total)

    def _fill(self, texts: Iterator[str], encode: Encode, total: int | None) -> int:
        added = 0
        waiting: dict[int, str] = {}
        bar = tqdm(total=total, desc="teacher vectors", unit="text", disable=None)
        known = set(self._keys.tolist())
        for text in texts:
            bar.update()
            key = text_hash(text)
            if key in known:
                continue
            known.add(key)
            waiting[key] = text
            if len(waiting) == _PART:
                added += self._write(waiting, encode)
                waiting = {}
        if waiting:
            added += self._write(waiting, encode)
        bar.close()
        self._read()
        return added

    def _write(self, texts: dict[int, str], encode: Encode) -> int:
        given = encode(list(texts.values()))
        with np.errstate(over="ignore"):  # told below
            vectors = given.astype(np.float16)
        broken = ~np.isfinite(vectors).all(axis=1)
        if broken.any():
            text = list(texts.values())[int(broken.argmax())]
            raise InputError(
                f"{self.folder}: {broken.sum()} of {len(texts)} vectors of its encoder are not"
                f" finite in float16, the first that of {text[:60]!r}: expected numbers: look for"
                " broken weights, or another precision; this part was not written"
            )
        name = f"{len(self._names()):05d}"
        _save(self.folder / f"{name}{_VECTORS}", vectors)
        _save(self.folder / f"{name}{_KEYS}", np.fromiter(texts, dtype=np.uint64))
        return len(texts)


def _save(path: Path, array: NDArray[Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        np.save(file, array)
    partial.rename(path)


def hashes(texts: Iterator[str]) -> NDArray[np.uint64]:
    """Hash texts as the cache does."""
    return np.fromiter((text_hash(t) for t in texts), dtype=np.uint64)


def read_texts_of(pairs: Path, chosen: NDArray[np.bool_], side: Side = "teacher") -> Iterator[str]:
    """Yield what the teacher, or the student, reads of the chosen [pairs] of a pairs stage."""
    return compress(read_lines(pairs / f"{side}.txt"), chosen)
