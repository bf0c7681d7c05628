"""From texts to vectors and predictions."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .batches import equal_lengths, join
from .engine import Engine
from .errors import InputError
from .inputs import (
    Text,
    check_collection,
    check_integer,
    check_iterable,
    check_text,
    check_text_or_pair,
    chunks,
)
from .package import ModelPackage
from .pieces import PieceReader, Pieces, Span
from .progress import Progress

logger = logging.getLogger(__name__)

DType = Literal["float32", "float16"]
Output = Literal["sentence_embedding", "pooled", "logits"]
_DTYPES: dict[str, type[np.floating[Any]]] = {"float32": np.float32, "float16": np.float16}


@dataclass(frozen=True)
class Prediction:
    """The most probable label of a text, and the probability of each label, highest first."""

    label: str
    score: float
    scores: dict[str, float]


class Model:
    """A loaded model package. Immutable and safe to use from many threads.

    The vector of a text does not depend on the other texts of a call, their order, or the lanes.
    """

    def __init__(
        self, package: ModelPackage, pieces: PieceReader, engine: Engine, *, variant: str
    ) -> None:
        """Join the parts of a package; use `rubert_lite.load`, which also checks that they fit."""
        self._package = package
        self._pieces = pieces
        self._engine = engine
        self._variant = variant
        self._typed = "token_type_ids" in engine.inputs

    @property
    def package(self) -> ModelPackage:
        """The package this model was loaded from."""
        return self._package

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self._package.manifest.hidden_size

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of `classify`; empty if the package has none."""
        return self._package.manifest.labels

    @property
    def max_length(self) -> int:
        """Longest text in pieces, specials included; the rest of a longer one is not read."""
        return self._package.manifest.max_length

    @property
    def variant(self) -> str:
        """Name of the graph that computes, one of the package's variants."""
        return self._variant

    @property
    def lanes(self) -> int:
        """Number of threads that compute."""
        return self._engine.lanes

    def encode(
        self,
        texts: Sequence[str],
        *,
        normalize: bool = True,
        truncate_dim: int | None = None,
        dtype: DType = "float32",
        progress: bool = False,
    ) -> NDArray[Any]:
        """Return the vectors of texts, [len(texts), dim], in order.

        Vectors are mean-pooled and, with `normalize`, of unit length. `truncate_dim` keeps the
        first dimensions (and normalises again). Raises InputError for anything but a list of
        strings.
        """
        check_collection(texts)
        arrays = self.iter_encode(
            texts, normalize=normalize, truncate_dim=truncate_dim, dtype=dtype, progress=progress
        )
        out = np.empty((len(texts), self._width(truncate_dim)), dtype=_DTYPES[dtype])
        start = 0
        for rows in arrays:
            out[start : start + len(rows)] = rows
            start += len(rows)
        return out

    def iter_encode(
        self,
        texts: Iterable[str],
        *,
        normalize: bool = True,
        truncate_dim: int | None = None,
        dtype: DType = "float32",
        progress: bool = False,
    ) -> Iterator[NDArray[Any]]:
        """Yield the vectors of any number of texts in arrays of up to 2048 rows, in order.

        Memory stays flat; the next texts are tokenised while the present ones are computed. The
        iterable is read in the calling thread, up to two arrays ahead.
        """
        check_iterable(texts)
        width = self._width(truncate_dim)
        if dtype not in _DTYPES:
            raise InputError(f"dtype {dtype!r}: expected one of {', '.join(_DTYPES)}")

        def vectors() -> Iterator[NDArray[Any]]:
            total = len(texts) if isinstance(texts, Sequence) else None
            with Progress("encode", total, shown=progress) as bar:
                for rows in self._compute(texts, "sentence_embedding" if normalize else "pooled"):
                    if width < rows.shape[1]:
                        rows = truncate(rows, width, normalize=normalize)
                    bar.add(len(rows))
                    yield rows.astype(_DTYPES[dtype], copy=False)

        return vectors()  # the arguments are checked now, not when the first array is asked for

    def classify(
        self,
        texts: Sequence[str] | Sequence[tuple[str, str]],
        *,
        top_k: int | None = None,
        progress: bool = False,
    ) -> list[Prediction]:
        """Return a prediction for each text, or for each pair of texts, in order.

        `top_k` bounds the labels in `scores`. Raises InputError for a package without labels.
        """
        check_collection(texts)
        if not self.labels:
            raise InputError(
                f"{self._package.manifest.name}: this model has no labels: classify with one that"
                " has; `rubert-lite models` lists them"
            )
        if top_k is not None:
            top_k = check_integer("top_k", top_k, low=1)
        predictions = []
        with Progress("classify", len(texts), shown=progress) as bar:
            for logits in self._compute(texts, "logits", pairs=True):
                predictions += self.predictions(logits, top_k=top_k)
                bar.add(len(logits))
        return predictions

    def predictions(
        self, logits: NDArray[np.float32], *, top_k: int | None = None
    ) -> list[Prediction]:
        """Turn logits [n, labels] into predictions."""
        found = []
        for row in _softmax(logits):
            order = np.argsort(-row, kind="stable")[:top_k]
            scores = {self.labels[i]: float(row[i]) for i in order}
            label = next(iter(scores))
            found.append(Prediction(label, scores[label], scores))
        return found

    def read(self, texts: Sequence[Text], *, pairs: bool = False) -> list[Pieces]:
        """Return the pieces of texts (or pairs of texts), cut to `max_length`.

        With `compute`, this is for schedulers such as a server's, which join the texts of several
        callers; everyone else is better served by `encode`.
        """
        check = check_text_or_pair if pairs else check_text
        return self._pieces.read([check(t, i) for i, t in enumerate(texts)])

    def compute(self, texts: Sequence[Pieces], output: Output) -> NDArray[np.float32]:
        """Compute one output of texts of equal length in pieces, [len(texts), width]."""
        return self._engine.run(join(texts, range(len(texts)), with_types=self._typed), output)

    def spans(self, text: str) -> list[Span]:
        """Return the pieces of a text, uncut, with their places in the normalised text."""
        return self._pieces.spans(check_text(text, 0))

    def tokenize(self, text: str) -> list[str]:
        """Return the pieces of a text as the model reads them, specials included."""
        return self._pieces.split(check_text(text, 0))

    def count_pieces(self, texts: Sequence[str]) -> list[int]:
        """Count the pieces of texts before they are cut, specials included.

        A text with more than `max_length` is cut by `encode`. Of a text of over 101 * max_length
        characters, only so many are counted.
        """
        check_collection(texts)
        counts: list[int] = []
        for chunk in chunks(texts):
            counts += self._pieces.count(
                [check_text(t, len(counts) + i) for i, t in enumerate(chunk)]
            )
        return counts

    def _width(self, truncate_dim: int | None) -> int:
        if truncate_dim is None:
            return self.dim
        return check_integer("truncate_dim", truncate_dim, low=1, high=self.dim)

    def _compute(
        self, texts: Iterable[Any], output: Output, *, pairs: bool = False
    ) -> Iterator[NDArray[np.float32]]:
        """Yield an output for chunks of texts, tokenising one chunk ahead."""
        # The iterable is read here, in the thread of the caller: it may be bound to it.
        stream = chunks(texts)
        chunk, following = next(stream, None), next(stream, None)
        if chunk is None:
            return
        prepared = self._prepare(chunk, 0, pairs=pairs)
        position, cut = len(prepared.rows), self._count_cut(prepared)
        if following is not None:
            with ThreadPoolExecutor(1, thread_name_prefix="rubert-lite-pieces") as ahead:
                while following is not None:
                    future = ahead.submit(self._prepare, following, position, pairs=pairs)
                    yield self._run(prepared, output)
                    prepared, following = future.result(), next(stream, None)
                    position += len(prepared.rows)
                    cut += self._count_cut(prepared)
        if cut:
            logger.warning("%d texts were cut to %d pieces", cut, self.max_length)
        yield self._run(prepared, output)

    def _prepare(self, texts: list[Any], start: int, *, pairs: bool) -> "_Prepared":
        check = check_text_or_pair if pairs else check_text
        # Equal texts are computed once.
        first: dict[Text, int] = {}
        rows = [first.setdefault(check(t, start + i), len(first)) for i, t in enumerate(texts)]
        return _Prepared(self._pieces.read(list(first)), np.array(rows, dtype=np.int64))

    def _run(self, prepared: "_Prepared", output: Output) -> NDArray[np.float32]:
        texts = prepared.texts
        result: NDArray[np.float32] | None = None
        batches = (join(texts, rows, with_types=self._typed) for rows in equal_lengths(texts))
        for indices, rows in self._engine.run_all(batches, output):
            if result is None:
                result = np.empty((len(texts), rows.shape[1]), dtype=np.float32)
            result[indices] = rows
        assert result is not None
        return result if len(result) == len(prepared.rows) else result[prepared.rows]

    def _count_cut(self, prepared: "_Prepared") -> int:
        cut = [i for i, text in enumerate(prepared.texts) if text.cut]
        return int(np.isin(prepared.rows, cut).sum()) if cut else 0


@dataclass(frozen=True)
class _Prepared:
    """Distinct texts of a chunk, tokenised, and which of them each row of the chunk is."""

    texts: list[Pieces]
    rows: NDArray[np.int64]


def truncate(
    rows: NDArray[np.float32], width: int, *, normalize: bool = True
) -> NDArray[np.float32]:
    """Keep the first dimensions; a part of a unit vector is shorter than 1."""
    rows = rows[:, :width]
    if not normalize:
        return rows
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    result: NDArray[np.float32] = rows / np.maximum(lengths, np.float32(1e-12))
    return result


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float32] = shifted / shifted.sum(axis=1, keepdims=True)
    return result
