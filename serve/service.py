"""What every protocol does: check texts, tokenise them, wait for a lane."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rubert_lite import Answer as Found
from rubert_lite import Entity, Model, Prediction
from rubert_lite.errors import InputError
from rubert_lite.inputs import Text
from rubert_lite.model import Output
from rubert_lite.pieces import Pieces, Span
from rubert_lite.predictions import Logits
from rubert_lite.prefixes import truncate
from rubert_lite.reader import Reading

from .faults import Empty, TooLarge
from .loading import open_model
from .metrics import Metrics
from .scheduler import Scheduler
from .settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_INLINE_CHARS = 4096  # fewer characters are tokenised at once: a thread would cost more


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
        self.scheduler = Scheduler(
            lanes=settings.lanes or model.lanes,
            max_queue_tokens=settings.max_queue_tokens,
            max_queue_seconds=settings.max_queue_seconds,
            on_batch=lambda texts, tokens, seconds: self.metrics.batch.observe(texts),
            on_line=lambda tokens: self.metrics.queue.set(tokens),
        )

    @property
    def ready(self) -> bool:
        """Whether a balancer should send requests here."""
        return not self.draining

    async def embed(
        self,
        texts: Sequence[str],
        *,
        normalize: bool = True,
        width: int | None = None,
        cut: bool | None = None,
    ) -> Answer:
        """Return the vectors of texts; `width` keeps the first dimensions."""
        model = self.model
        if width is not None and not 1 <= width <= model.dim:
            raise InputError(f"dimensions = {width}: expected 1 to {model.dim}")
        output: Output = "sentence_embedding" if normalize else "pooled"
        answer = await self._compute(model, texts, output, cut=cut)
        if width is None or width == model.dim:
            return answer
        rows = truncate(answer.rows, width, normalize=normalize)
        return Answer(rows, answer.spent)

    async def classify(
        self, texts: Sequence[Text], *, cut: bool | None = None
    ) -> tuple[list[Prediction], Answer]:
        """Return a prediction for each text or pair of texts."""
        model = self.model
        if not model.labels:
            name = model.package.manifest.name
            raise InputError(f"{name} has no labels: it only encodes")
        answer = await self._compute(model, texts, "logits", cut=cut)
        return model.predictions(answer.rows), answer

    async def tag(self, texts: Sequence[str]) -> tuple[list[list[Entity]], Spent]:
        """Return the entities of each text, of any length, with their places in it."""
        model = self.model
        return await self._read_spans(model, texts, lambda: model.read_entities(texts))

    async def answer(self, pairs: Sequence[tuple[str, str]]) -> tuple[list[Found], Spent]:
        """Return the best answer to each (question, context) out of the context."""
        model = self.model
        return await self._read_spans(model, pairs, lambda: model.read_answers(pairs))

    async def tokenize(self, texts: Sequence[str], write: Callable[[list[Span]], R]) -> list[R]:
        """Return what `write` makes, in a thread, of the pieces of each text with their places."""
        self.check(texts)
        model, limit = self.model, self.settings.max_queue_tokens

        def read() -> list[R]:
            found, total = [], 0
            for text in texts:
                spans = model.spans(text)
                total += len(spans)
                if total > limit:
                    raise TooLarge(f"more than {limit} pieces, the most of a request: split it")
                found.append(write(spans))
            return found

        return await asyncio.to_thread(read)

    async def _compute(
        self, model: Model, texts: Sequence[Text], output: Output, *, cut: bool | None
    ) -> Answer:
        began = time.perf_counter()
        pairs = output == "logits"
        pieces = await _near(self.check(texts), lambda: model.read(texts, pairs=pairs))
        if not (self.settings.auto_truncate if cut is None else cut):
            for place, text in enumerate(pieces):
                if text.cut:
                    raise _cut(place, model)
        rows, spent = await self._schedule(model, pieces, output, began)
        self.metrics.texts.inc(len(texts))
        return Answer(np.stack(rows), spent)

    async def _read_spans(
        self, model: Model, texts: Sequence[Text], read: Callable[[], Reading[T]]
    ) -> tuple[list[T], Spent]:
        began = time.perf_counter()
        chars = self.check(texts)
        reading = await _near(chars, read)
        rows, spent = await self._schedule(model, reading.windows, "logits", began)
        self.metrics.texts.inc(len(texts))
        return await _near(chars, lambda: reading.finish(rows)), spent

    async def _schedule(
        self, model: Model, pieces: Sequence[Pieces], output: Output, began: float
    ) -> tuple[list[Logits], Spent]:
        """Wait for the lanes; `began` is when the reading of the texts did."""
        read = time.perf_counter()
        found = await self.scheduler.compute(
            model, pieces, output, timeout=self.settings.timeout_seconds
        )
        tokens = sum(len(p.ids) for p in pieces)
        phases = {
            "tokenization": read - began,
            "queue": found.queued,
            "inference": found.computing,
        }
        self.metrics.phases(phases)
        self.metrics.tokens.inc(tokens)
        return found.rows, Spent(tokens, phases)

    async def refused(self, texts: Sequence[str]) -> dict[int, InputError]:
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
            model = self.model
            pieces = await asyncio.to_thread(model.read, [texts[i] for i in fit])
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
            chars = len(text) if isinstance(text, str) else sum(map(len, text))
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
        """Answer what waits, then end the lanes."""
        self.scheduler.close()


async def _near(chars: int, work: Callable[[], R]) -> R:
    """Do what takes as long as a text has characters: in a thread, if that is worth one."""
    return work() if chars <= _INLINE_CHARS else await asyncio.to_thread(work)


def _cut(place: int, model: Model) -> TooLarge:
    limit = model.max_length
    return TooLarge(f"text {place}: more than {limit} pieces: shorten it or let it be cut")
