"""Vectors of sentence teachers, computed once and kept on disk.

A cache folder belongs to one teacher. It holds parts of up to 16,384 vectors in float16 and the
hashes of their texts; a part is written whole, so a run that was killed goes on after the last one.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
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


class Beside:
    """The vectors of several encoders of one text side by side, as those of one teacher.

    Each has length 1 before: a cosine of two joined vectors is the mean of the encoders' cosines.
    With a `matrix` [joined width, width] they are brought by it to another teacher's vectors.
    """

    def __init__(
        self, caches: Sequence[VectorCache], matrix: NDArray[np.float32] | None = None
    ) -> None:
        """Take what has been computed of each encoder, or will be."""
        self.caches = tuple(caches)
        self.matrix = matrix
        self.folder = self.caches[0].folder

    def __len__(self) -> int:
        """Return the number of texts that the first encoder has read."""
        return len(self.caches[0])

    @property
    def width(self) -> int:
        """Width of the vectors; 0 while an encoder has none."""
        widths = [cache.width for cache in self.caches]
        if not all(widths):
            return 0
        return sum(widths) if self.matrix is None else int(self.matrix.shape[1])

    @cached_property
    def _places(self) -> tuple[NDArray[np.int64], ...]:
        """Row of each text of the first encoder in the vectors of each of the others."""
        return tuple(cache.rows(self.caches[0].keys) for cache in self.caches[1:])

    def rows(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the row of each text hash [n], -1 where an encoder has not read it."""
        rows = self.caches[0].rows(keys)
        for cache in self.caches[1:]:
            rows = np.where(cache.rows(keys) < 0, -1, rows)
        return rows

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return vectors [n, width] by row."""
        places = (rows, *(found[rows] for found in self._places))
        parts = [_unit(cache.vectors(own)) for cache, own in zip(self.caches, places, strict=True)]
        joined = np.concatenate(parts, axis=1) / np.sqrt(np.float32(len(parts)))
        if self.matrix is not None:
            joined = _unit(joined @ self.matrix)
        short: NDArray[np.float16] = joined.astype(np.float16)
        return short


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    wide = vectors.astype(np.float32)
    lengths = np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    scaled: NDArray[np.float32] = wide / lengths
    return scaled


def ridge(
    given: NDArray[Any], wanted: NDArray[Any], *, strength: float = 1e-3
) -> NDArray[np.float32]:
    """Return the linear map [given width, wanted width] of least squares with a ridge.

    `strength` is a share of the mean of the diagonal of the second moment of `given` [n, D].
    """
    x, y = given.astype(np.float64), wanted.astype(np.float64)
    moment = x.T @ x
    moment[np.diag_indices(len(moment))] += strength * moment.diagonal().mean()
    found: NDArray[np.float32] = np.linalg.solve(moment, x.T @ y).astype(np.float32)
    return found


@dataclass(frozen=True)
class Own:
    """What encoders said of the student's side of each pair, and its share of every cosine."""

    cache: VectorCache | Beside
    rows: NDArray[np.int64]  # [pairs] row in the cache
    share: float


@dataclass(frozen=True)
class Targets:
    """The vector of each pair, from the cache of the teacher that read it."""

    caches: tuple[VectorCache | Beside, ...]
    rows: NDArray[np.int64]  # [pairs] row in the cache
    teachers: NDArray[np.uint8]  # [pairs] number of the cache
    own: Own | None = None  # stands beside them

    def __post_init__(self) -> None:
        """Refuse caches that do not fit the pairs, or each other (InputError)."""
        read = [(c, self.rows[self.teachers == n]) for n, c in enumerate(self.caches)]
        if self.own is not None:
            read.append((self.own.cache, self.own.rows))
        for cache, rows in read:
            if len(cache) <= rows.max(initial=-1) or rows.min(initial=0) < 0:
                raise InputError(
                    f"{cache.folder}: lacks vectors of these pairs: delete their 05-vectors, then"
                    " run `rubert-lite train vectors`"
                )
        widths = {cache.width for cache in self.caches if cache.width}
        if len(widths) > 1:
            raise InputError(
                f"the teachers' vectors differ in width: {sorted(widths)}: with"
                " sentence.plain_fitted = true the second teacher's are brought to the first's"
            )

    @property
    def width(self) -> int:
        """Width of the vectors."""
        own = self.own.cache.width if self.own is not None else 0
        return max(cache.width for cache in self.caches) + own

    def vectors(self, pairs: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return the vectors [n, width] of pairs by number."""
        width = max(cache.width for cache in self.caches)
        out = np.empty((len(pairs), width), dtype=np.float16)
        teachers = self.teachers[pairs]
        for number, cache in enumerate(self.caches):
            read = teachers == number
            if read.any():
                out[read] = cache.vectors(self.rows[pairs[read]])
        if self.own is None:
            return out
        share = self.own.share
        parts = out, self.own.cache.vectors(self.own.rows[pairs])
        weighted = [_unit(p) * np.sqrt(w) for p, w in zip(parts, (1 - share, share), strict=True)]
        joined: NDArray[np.float16] = np.concatenate(weighted, axis=1).astype(np.float16)
        return joined

    def groups(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return a number for what the teacher read of each pair [n]: equal for one text."""
        return self.rows[pairs] * len(self.caches) + self.teachers[pairs]


def hashes(texts: Iterator[str]) -> NDArray[np.uint64]:
    """Hash texts as the cache does."""
    return np.fromiter((text_hash(t) for t in texts), dtype=np.uint64)


def read_texts_of(pairs: Path, chosen: NDArray[np.bool_], side: Side = "teacher") -> Iterator[str]:
    """Yield what the teacher, or the student, reads of the chosen [pairs] of a pairs stage."""
    return compress(read_lines(pairs / f"{side}.txt"), chosen)
