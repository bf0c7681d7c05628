"""From any number of texts to one output of the graph, chunk by chunk, in order."""

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .batches import Batching
from .engine import Runner
from .inputs import Check, Text, check_text, chunks
from .pieces import PieceReader, Pieces

logger = logging.getLogger(__name__)


class Stream:
    """The pieces and the graph of a model; memory does not grow with the texts."""

    def __init__(self, pieces: PieceReader, engine: Runner, *, batching: Batching) -> None:
        """Borrow the parts of a model."""
        self._pieces = pieces
        self._engine = engine
        self._batching = batching

    def read(
        self, texts: Iterable[Any], output: str, *, check: Check = check_text
    ) -> Iterator[NDArray[np.float32]]:
        """Yield an output [n, width] for chunks of n texts, tokenising one chunk ahead.

        `check` returns a text or a pair by what stands at a place, or raises InputError.
        """
        # The iterable is read here, in the thread of the caller: it may be bound to it.
        stream = chunks(texts)
        chunk, following = next(stream, None), next(stream, None)
        if chunk is None:
            return
        prepared = self._prepare(chunk, 0, check)
        position, cut = len(prepared.rows), _count_cut(prepared)
        if following is not None:
            with ThreadPoolExecutor(1, thread_name_prefix="rubert-lite-pieces") as ahead:
                while following is not None:
                    future = ahead.submit(self._prepare, following, position, check)
                    yield self._run(prepared, output)
                    prepared, following = future.result(), next(stream, None)
                    position += len(prepared.rows)
                    cut += _count_cut(prepared)
        self._warn(cut)
        yield self._run(prepared, output)

    def read_one(self, text: object, output: str) -> NDArray[np.float32]:
        """Return an output [1, width] of one text."""
        pieces = self._pieces.read([check_text(text, 0)])
        self._warn(pieces[0].cut)
        ((_, rows),) = self._engine.run_all([self._batching.join(pieces, (0,))], output)
        return rows

    def _warn(self, cut: int) -> None:
        if cut:
            logger.warning("%d texts were cut to %d pieces", cut, self._batching.max_length)

    def _prepare(self, texts: list[Any], start: int, check: Check) -> "_Prepared":
        # Equal texts are computed once.
        first: dict[Text, int] = {}
        rows = [first.setdefault(check(t, start + i), len(first)) for i, t in enumerate(texts)]
        return _Prepared(self._pieces.read(list(first)), np.array(rows, dtype=np.int64))

    def _run(self, prepared: "_Prepared", output: str) -> NDArray[np.float32]:
        texts = prepared.texts
        result: NDArray[np.float32] | None = None
        for indices, rows in self._engine.run_all(self._batching.split(texts), output):
            if result is None:
                result = np.empty((len(texts), rows.shape[1]), dtype=np.float32)
            result[indices] = rows
        assert result is not None
        return result if len(result) == len(prepared.rows) else result[prepared.rows]


@dataclass(frozen=True)
class _Prepared:
    """Distinct texts of a chunk, tokenised, and which of them each row of the chunk is."""

    texts: list[Pieces]
    rows: NDArray[np.int64]


def _count_cut(prepared: _Prepared) -> int:
    cut = [i for i, text in enumerate(prepared.texts) if text.cut]
    return int(np.isin(prepared.rows, cut).sum()) if cut else 0
