"""What a student of sentences should say: the cached vectors of its teachers, joined."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rubert_lite.errors import InputError

from .vectors import VectorCache

_READ = 65_536  # vectors read together


class Beside:
    """The vectors of several encoders of one text side by side, as those of one teacher.

    Each has length 1 before: a cosine of two joined vectors is the mean of the encoders' cosines.
    With a `matrix` [joined width, width] they are brought by it to another teacher's vectors.
    With `centres` [joined width] each encoder's is taken from its unit vectors, which have length 1
    again after: what all texts share says nothing of any, and of multilingual-e5-small, trained at
    a temperature of .01, it is .8 of every squared length.
    """

    def __init__(
        self,
        caches: Sequence[VectorCache],
        matrix: NDArray[np.float32] | None = None,
        centres: NDArray[np.float32] | None = None,
    ) -> None:
        """Take what has been computed of each encoder, or will be."""
        self.caches = tuple(caches)
        self.matrix = matrix
        self.centres = centres
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
        parts = self._parts(rows)
        if self.centres is not None:
            ends = np.cumsum([cache.width for cache in self.caches[:-1]])
            centres = np.split(self.centres, ends)
            parts = [_unit(part - centre) for part, centre in zip(parts, centres, strict=True)]
        joined = np.concatenate(parts, axis=1) / np.sqrt(np.float32(len(parts)))
        if self.matrix is not None:
            joined = _unit(joined @ self.matrix)
        short: NDArray[np.float16] = joined.astype(np.float16)
        return short

    def _parts(self, rows: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        """Return the unit vectors [n, width] of each encoder."""
        places = (rows, *(found[rows] for found in self._places))
        return [_unit(cache.vectors(own)) for cache, own in zip(self.caches, places, strict=True)]

    def means(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the mean of each encoder's unit vectors of some texts, [joined width]."""
        total = np.zeros(sum(cache.width for cache in self.caches))
        for start in range(0, len(rows), _READ):
            parts = self._parts(rows[start : start + _READ])
            total += np.concatenate(parts, axis=1).sum(0, dtype=np.float64)
        found: NDArray[np.float32] = (total / max(len(rows), 1)).astype(np.float32)
        return found


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
