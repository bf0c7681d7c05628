"""From texts to vectors and predictions."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from .batches import Batching
from .engine import Engine
from .errors import InputError
from .inputs import (
    Text,
    check_collection,
    check_integer,
    check_iterable,
    check_pair,
    check_text,
    checking,
    chunks,
)
from .package import ModelPackage
from .pieces import PieceReader, Pieces, Span
from .predictions import Answer, Entity, Prediction, read_labels
from .prefixes import truncate
from .progress import Progress
from .reader import Reading, SpanReader
from .stream import Stream

_T = TypeVar("_T")
DType = Literal["float32", "float16"]
Output = Literal["sentence_embedding", "pooled", "logits"]
_DTYPES: dict[str, type[np.floating[Any]]] = {"float32": np.float32, "float16": np.float16}


class Model:
    """A loaded model package. Immutable and safe to use from many threads.

    The vector of a text does not depend on the other texts of a call, their order, or the lanes; by
    the variants int8-turbo and fp16 it does, in its third decimal.
    """

    def __init__(
        self, package: ModelPackage, pieces: PieceReader, engine: Engine, *, variant: str
    ) -> None:
        """Join the parts of a package; use `rubert_lite.load`, which also checks that they fit."""
        self._package = package
        self._pieces = pieces
        self._engine = engine
        self._variant = variant
        self._check = checking(package.manifest.inputs)
        self._batching = Batching.of(engine.inputs, max_length=self.max_length)
        self._stream = Stream(pieces, engine, batching=self._batching)
        self._spans = SpanReader(pieces, engine, batching=self._batching)

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
        """Labels of `classify`; empty for a model of another task."""
        manifest = self._package.manifest
        return manifest.labels if manifest.task == "classification" else ()

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
        if len(texts) == 1:  # all that many texts need would cost a fifth more
            shape = self._shape(normalize, truncate_dim, dtype)
            return shape.apply(self._stream.read_one(next(iter(texts)), shape.output))
        arrays = self.iter_encode(
            texts, normalize=normalize, truncate_dim=truncate_dim, dtype=dtype, progress=progress
        )
        out = np.empty((len(texts), self._width(truncate_dim)), dtype=_DTYPES[dtype])
        start = 0
        for rows in arrays:
            room = out[start : start + len(rows)]
            room[:] = rows[: len(room)]
            start += len(rows)
        if start != len(out):
            raise InputError(f"texts: {start} came, but their collection says {len(out)}")
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
        shape = self._shape(normalize, truncate_dim, dtype)

        def vectors() -> Iterator[NDArray[Any]]:
            total = len(texts) if isinstance(texts, Sequence) else None
            with Progress("encode", total, shown=progress) as bar:
                for rows in self._stream.read(texts, shape.output):
                    bar.add(len(rows))
                    yield shape.apply(rows)

        return vectors()  # the arguments are checked now, not when the first array is asked for

    def classify(
        self,
        texts: Sequence[str] | Sequence[tuple[str, str]],
        *,
        top_k: int | None = None,
        progress: bool = False,
    ) -> list[Prediction]:
        """Return a prediction for each text, or for each pair of texts, in order.

        `top_k` bounds the labels in `scores`. InputError: no labels; texts where it reads pairs.
        """
        check_collection(texts)
        self._must("classify", "classification")
        if top_k is not None:
            top_k = check_integer("top_k", top_k, low=1)
        predictions = []
        with Progress("classify", len(texts), shown=progress) as bar:
            for logits in self._stream.read(texts, "logits", check=self._check):
                predictions += self.predictions(logits, top_k=top_k)
                bar.add(len(logits))
        return predictions

    def tag(self, texts: Sequence[str], *, progress: bool = False) -> list[list[Entity]]:
        """Return the entities of each text, with their places in the string that was given.

        Texts of any length are read whole, in overlapping windows. Raises InputError for a package
        of another task than token-classification.
        """
        check_collection(texts)
        self._must("tag", "token-classification")
        found: list[list[Entity]] = []
        for checked in _checked(texts, check_text, "tag", shown=progress):
            found += self._spans.complete(self._entities(checked))
        return found

    def answer(self, pairs: Sequence[tuple[str, str]], *, progress: bool = False) -> list[Answer]:
        """Return the best answer to each (question, context), a stretch of the context.

        Contexts of any length are read whole, in overlapping windows; of a question, half of
        `max_length`. Raises InputError for a package of another task than question-answering.
        """
        check_collection(pairs)
        self._must("answer", "question-answering")
        found: list[Answer] = []
        for checked in _checked(pairs, check_pair, "answer", shown=progress):
            found += self._spans.complete(self._spans.windows.answers(checked))
        return found

    def _must(self, call: str, task: str) -> None:
        manifest = self._package.manifest
        if manifest.task != task:
            raise InputError(
                f"{manifest.name}: a model for {manifest.task}, {call} needs one for {task};"
                " `rubert-lite models` lists them"
            )

    def predictions(
        self, logits: NDArray[np.float32], *, top_k: int | None = None
    ) -> list[Prediction]:
        """Turn logits [n, labels] into predictions."""
        return read_labels(logits, self.labels, top_k=top_k)

    def read(self, texts: Sequence[Text], *, pairs: bool = False) -> list[Pieces]:
        """Return the pieces of texts (or pairs of texts), cut to `max_length`.

        With `compute`, this is for schedulers such as a server's, which join the texts of several
        callers; everyone else is better served by `encode`.
        """
        check = self._check if pairs else check_text
        return self._pieces.read([check(t, i) for i, t in enumerate(texts)])

    def read_entities(self, texts: Sequence[str]) -> Reading[list[Entity]]:
        """Return what `tag` would compute, in windows, for schedulers: see `read`."""
        self._must("tag", "token-classification")
        return self._entities([check_text(t, i) for i, t in enumerate(texts)])

    def read_answers(self, pairs: Sequence[tuple[str, str]]) -> Reading[Answer]:
        """Return what `answer` would compute, in windows, for schedulers: see `read`."""
        self._must("answer", "question-answering")
        return self._spans.windows.answers([check_pair(p, i) for i, p in enumerate(pairs)])

    def _entities(self, texts: Sequence[str]) -> Reading[list[Entity]]:
        return self._spans.windows.entities(texts, self._package.manifest.labels)

    def compute(self, texts: Sequence[Pieces], output: Output) -> NDArray[np.float32]:
        """Compute one output of texts of equal length in pieces, [len(texts), width].

        Logits of a package that tags or answers are [len(texts), length, labels], or longer where
        the graph reads padded texts (fp16).
        """
        return self._engine.run(self._batching.join(texts, range(len(texts))), output)

    def spans(self, text: str) -> list[Span]:
        """Return the pieces of a text, uncut, with their places in the string as given."""
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

    def _shape(self, normalize: bool, truncate_dim: int | None, dtype: DType) -> "_Shape":
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise InputError(f"dtype {dtype!r}: expected one of {', '.join(_DTYPES)}")
        return _Shape(normalize, self._width(truncate_dim), _DTYPES[dtype])

    def _width(self, truncate_dim: int | None) -> int:
        if truncate_dim is None:
            return self.dim
        return check_integer("truncate_dim", truncate_dim, low=1, high=self.dim)


@dataclass(frozen=True, slots=True)
class _Shape:
    """How vectors are wanted."""

    normalize: bool
    width: int
    dtype: type[np.floating[Any]]

    @property
    def output(self) -> Output:
        return "sentence_embedding" if self.normalize else "pooled"

    def apply(self, rows: NDArray[np.float32]) -> NDArray[Any]:
        if self.width < rows.shape[1]:
            rows = truncate(rows, self.width, normalize=self.normalize)
        return rows.astype(self.dtype, copy=False)


def _checked(
    items: Sequence[Any], check: Callable[[object, int], _T], name: str, *, shown: bool
) -> Iterator[list[_T]]:
    """Yield checked chunks, and move the bar when the work on one is done."""
    start = 0
    with Progress(name, len(items), shown=shown) as bar:
        for chunk in chunks(items):
            yield [check(item, start + i) for i, item in enumerate(chunk)]
            start += len(chunk)
            bar.add(len(chunk))
