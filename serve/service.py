"""What every protocol does: check texts, tokenise them, wait for a lane."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rubert_lite import Answer as Found
from rubert_lite import Entity, Model, Prediction
from rubert_lite.errors import InputError
from rubert_lite.inputs import Text, checking
from rubert_lite.model import Output
from rubert_lite.pieces import Pieces, Span
from rubert_lite.predictions import Logits
from rubert_lite.prefixes import truncate
from rubert_lite.reader import Reading

from .faults import Empty, TooLarge
from .loading import open_model
from .metrics import Metrics
from .readers import Readers, count_chars, parts_of
from .scheduler import Scheduler
from .settings import Settings
from .visit import Visit

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")
X = TypeVar("X", bound=Text)

_INLINE_CHARS = 4096  # fewer characters are tokenised at once: a thread would cost more
_PIECE_CHARS = 8  # more than those of a piece of Russian text, with the white space around it


@dataclass(frozen=True)
class Spent:
    """What one request cost: pieces, and seconds of each phase."""

    tokens: int
    phases: dict[str, float]  # tokenization, queue, inference


@dataclass(frozen=True)
class Answer:
    """A row for each text of a request."""

    rows: NDArray[np.float32]
    spent: Spent


class Service:
    """A model, its scheduler and its limits, for one process."""

    def __init__(self, model: Model, settings: Settings, metrics: Metrics) -> None:
        """Start the lanes; the model may be swapped later."""
        self.model = model
        self.settings = settings
        self.metrics = metrics
        self.draining = False
        self.reloading = asyncio.Lock()  # one reload at a time
        lanes = settings.lanes or model.lanes
        self.scheduler = Scheduler(
            lanes=lanes,
            max_queue_tokens=settings.max_queue_tokens,
            max_queue_seconds=settings.max_queue_seconds,
            on_batch=lambda texts, tokens, seconds: self.metrics.batch.observe(texts),
            on_line=lambda tokens: self.metrics.queue.set(tokens),
        )

        self.readers = Readers(
            threads=max(lanes, 2),  # one alone would be held up by a single long text
            max_queue_chars=settings.max_queue_tokens * _PIECE_CHARS,
            max_queue_seconds=settings.max_queue_seconds,
        )

    @property
    def ready(self) -> bool:
        """Whether a balancer should send requests here."""
        return not self.draining

    def visit(self) -> Visit:
        """Begin a request: it keeps the model of now, and its time runs."""
        return Visit.begin(self.model, self.settings.timeout_seconds)

    async def embed(
        self,
        visit: Visit,
        texts: Sequence[str],
        *,
        normalize: bool = True,
        width: int | None = None,
        cut: bool | None = None,
    ) -> Answer:
        """Return the vectors of texts; `width` keeps the first dimensions."""
        dim = visit.model.dim
        if width is not None and not 1 <= width <= dim:
            raise InputError(f"dimensions = {width}: expected 1 to {dim}")
        output: Output = "sentence_embedding" if normalize else "pooled"
        answer = await self._compute(visit, texts, output, cut=cut)
        if width is None or width == dim:
            return answer
        rows = truncate(answer.rows, width, normalize=normalize)
        return Answer(rows, answer.spent)

    async def classify(
        self, visit: Visit, texts: Sequence[Text], *, cut: bool | None = None
    ) -> tuple[list[Prediction], Answer]:
        """Return a prediction for each text or pair of texts."""
        model = visit.model
        if not model.labels:
            name = model.package.manifest.name
            raise InputError(f"{name} has no labels: it only encodes")
        self.check(texts)
        check = checking(model.package.manifest.inputs)
        for place, text in enumerate(texts):  # parts of them would be counted anew
            check(text, place)
        answer = await self._compute(visit, texts, "logits", cut=cut)
        return model.predictions(answer.rows), answer

    async def tag(self, visit: Visit, texts: Sequence[str]) -> tuple[list[list[Entity]], Spent]:
        """Return the entities of each text, of any length, with their places in it."""
        return await self._read_spans(visit, texts, visit.model.read_entities)

    async def answer(
        self, visit: Visit, pairs: Sequence[tuple[str, str]]
    ) -> tuple[list[Found], Spent]:
        """Return the best answer to each (question, context) out of the context."""
        return await self._read_spans(visit, pairs, visit.model.read_answers)

    async def tokenize(
        self, visit: Visit, texts: Sequence[str], write: Callable[[list[Span]], R]
    ) -> list[R]:
        """Return what `write` makes, in a thread, of the pieces of each text with their places."""
        limit = self.settings.max_queue_tokens

        def read() -> Iterator[R]:
            total = 0
            for text in texts:
                spans = visit.model.spans(text)
                total += len(spans)
                if total > limit:
                    raise TooLarge(f"more than {limit} pieces, the most of a request: split it")
                yield write(spans)

        async with visit.in_time():
            return await self.readers.read(self.check(texts), read())

    async def _compute(
        self, visit: Visit, texts: Sequence[Text], output: Output, *, cut: bool | None
    ) -> Answer:
        began = time.perf_counter()
        async with visit.in_time():
            pieces = await self._pieces(visit.model, texts, pairs=output == "logits")
            if not (self.settings.auto_truncate if cut is None else cut):
                for place, text in enumerate(pieces):
                    if text.cut:
                        raise _cut(place, visit.model)
            rows, spent = await self._schedule(visit.model, pieces, output, began)
        self.metrics.texts.inc(len(texts))
        return Answer(np.stack(rows), spent)

    async def _pieces(
        self, model: Model, texts: Sequence[Text], *, pairs: bool = False
    ) -> list[Pieces]:
        parts = (model.read(part, pairs=pairs) for part in parts_of(texts))
        return [pieces for part in await self._read(self.check(texts), parts) for pieces in part]

    async def _read_spans(
        self, visit: Visit, texts: Sequence[X], read: Callable[[Sequence[X]], Reading[T]]
    ) -> tuple[list[T], Spent]:
        began = time.perf_counter()
        chars = self.check(texts)
        async with visit.in_time():
            readings = await self._read(chars, (read(part) for part in parts_of(texts)))
            windows = [window for reading in readings for window in reading.windows]
            rows, spent = await self._schedule(visit.model, windows, "logits", began)
            finished = _finish(readings, rows)
            # What is computed is not refused any more.
            found = await self._read(chars, finished, admitted=True)
        self.metrics.texts.inc(len(texts))
        return [said for part in found for said in part], spent

    async def _read(self, chars: int, parts: Iterator[R], *, admitted: bool = False) -> list[R]:
        """Do what takes as long as texts have characters: in a thread, if that is worth one."""
        if chars <= _INLINE_CHARS:
            return list(parts)
        return await self.readers.read(chars, parts, admitted=admitted)

    async def _schedule(
        self, model: Model, pieces: Sequence[Pieces], output: Output, began: float
    ) -> tuple[list[Logits], Spent]:
        """Wait for the lanes; `began` is when the reading of the texts did."""
        read = time.perf_counter()
        found = await self.scheduler.compute(model, pieces, output)
        tokens = sum(len(p.ids) for p in pieces)
        phases = {
            "tokenization": read - began,
            "queue": found.queued,
            "inference": found.computing,
        }
        self.metrics.phases(phases)
        self.metrics.tokens.inc(tokens)
        return found.rows, Spent(tokens, phases)

    async def refused(self, visit: Visit, texts: Sequence[str]) -> dict[int, InputError]:
        """Find the texts that alone would be refused, and why."""
        found: dict[int, InputError] = {}
        fit = []
        for place, text in enumerate(texts):
            try:
                self.check([text], first=place)
                fit.append(place)
            except InputError as error:
                found[place] = error
        if not self.settings.auto_truncate and fit:
            model = visit.model
            async with visit.in_time():
                pieces = await self._pieces(model, [texts[i] for i in fit])
            found |= {i: _cut(i, model) for i, p in zip(fit, pieces, strict=True) if p.cut}
        return found

    def check(self, texts: Sequence[Text], *, first: int = 0) -> int:
        """Count the characters; refuse what is beyond a limit. `first` numbers the first text."""
        limits = self.settings
        if not texts:
            raise Empty("no texts: expected at least one")
        if len(texts) > limits.max_items:
            raise TooLarge(f"{len(texts)} texts, expected at most {limits.max_items}: split them")
        total = 0
        for place, text in enumerate(texts, start=first):
            chars = count_chars(text)
            if chars > limits.max_item_chars:
                raise TooLarge(
                    f"text {place}: {chars} characters, expected at most {limits.max_item_chars}"
                )
            total += chars
        return total

    def reload(self) -> None:
        """Load the package anew and use it from now on; requests under way keep the old one.

        Raises PackageError, and keeps the old one, if it does not load or compute.
        """
        try:
            self.model = open_model(self.settings)
        except Exception:
            self.metrics.reloads.labels("refused").inc()
            raise
        self.metrics.reloads.labels("done").inc()

    def close(self) -> None:
        """Answer what waits, then end the threads."""
        self.readers.close()
        self.scheduler.close()


def _finish(readings: Sequence[Reading[T]], rows: Sequence[Logits]) -> Iterator[list[T]]:
    start = 0
    for reading in readings:
        stop = start + len(reading.windows)
        yield reading.finish(rows[start:stop])
        start = stop


def _cut(place: int, model: Model) -> TooLarge:
    limit = model.max_length
    return TooLarge(f"text {place}: more than {limit} pieces: shorten it or let it be cut")
