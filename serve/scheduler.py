"""Share lanes among requests: batches of equal length out of whoever waits, fair by pieces.

* A free lane takes the text that is first in line and others of its length, and never waits for
  more to come.
* Fair: a text stands in line behind the pieces of its own request, not behind those of others. A
  request of a thousand texts does not hold up a request of one (start-time fair queueing).
* The same text in flight twice is computed once.
* Texts of requests that were given up are dropped before they are computed.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rubert_lite import Model
from rubert_lite.batches import BATCH_PIECES
from rubert_lite.model import Output
from rubert_lite.pieces import Pieces

from .faults import TooLarge, Unavailable
from .line import Job, Line, Ticket
from .pace import Pace, check_room

logger = logging.getLogger(__name__)

_START_RATE = 20_000.0  # pieces a second and lane, until it is measured


@dataclass(frozen=True)
class Computed:
    """Rows of one request, in order, and where its time went, in seconds.

    Rows are [width]; of logits for each piece, [length, labels].
    """

    rows: list[NDArray[np.float32]]
    queued: float
    computing: float


class Scheduler:
    """Lanes (threads) that compute what requests of one event loop wait for."""

    def __init__(
        self,
        *,
        lanes: int,
        max_queue_tokens: int,
        max_queue_seconds: float = math.inf,
        on_batch: Callable[[int, int, float], None] = lambda texts, tokens, seconds: None,
        on_line: Callable[[int], None] = lambda tokens: None,
    ) -> None:
        """Start the lanes; `on_batch` is told texts, pieces and seconds of every batch.

        `on_line` is told the pieces that wait, whenever some were taken out of the line.

        The line may hold `max_queue_tokens` pieces; while those in it take more than
        `max_queue_seconds`, it takes no others.
        """
        self._limit = max_queue_tokens
        self._patience = max_queue_seconds
        self._on_batch = on_batch
        self._on_line = on_line
        self._line = Line()
        self._flying: dict[tuple[Any, ...], Job] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._pace = Pace(_START_RATE * lanes)
        self._lanes = [
            threading.Thread(target=self._work, name=f"lane-{i}", daemon=True) for i in range(lanes)
        ]
        for lane in self._lanes:
            lane.start()

    @property
    def queued_tokens(self) -> int:
        """Pieces of texts that wait for a lane."""
        return self._line.tokens

    def check_room(self) -> None:
        """Raise Overloaded if the line takes nothing more: known before a request is read."""
        self._admit(0)

    async def compute(self, model: Model, texts: Sequence[Pieces], output: Output) -> Computed:
        """Return one output of every text.

        Raises Overloaded when the line is full, TooLarge when the texts alone would fill it,
        Unavailable when it is closed, and what the graph raises.
        """
        loop = asyncio.get_running_loop()
        ticket = Ticket(loop.create_future(), [None] * len(texts), len(texts), time.perf_counter())
        cost = sum(len(t.ids) for t in texts)
        if cost > self._limit:
            raise TooLarge(f"{cost} pieces, expected at most {self._limit} a request: split it")
        with self._changed:
            if self._closed:
                raise Unavailable("the server is stopping: ask another one")
            self._admit(cost)
            self._enter(ticket, model, texts, output)
        try:
            await ticket.future
        finally:
            ticket.live = False
        done = time.perf_counter()
        rows = [row for row in ticket.rows if row is not None]
        return Computed(rows, ticket.started - ticket.submitted, done - ticket.started)

    def _admit(self, cost: int) -> None:
        check_room(
            self._line.tokens,
            cost,
            most=self._limit,
            seconds=self._patience,
            rate=self._pace.rate,
            unit="pieces",
        )

    def _enter(self, ticket: Ticket, model: Model, texts: Sequence[Pieces], output: Output) -> None:
        rank = self._line.clock
        new = 0
        for place, text in enumerate(texts):
            key = (id(model), output, text.second, *text.ids)
            job = self._flying.get(key)
            if job is None:
                job = self._flying[key] = Job(model, output, text, [], key)
                rank += len(text.ids)
                self._line.add(job, rank)
                new += 1
            elif not job.taken:  # it waits behind the shorter of the two requests
                if rank + len(text.ids) < job.rank:
                    self._line.place(job, rank + len(text.ids))
            elif not ticket.started:
                ticket.started = ticket.submitted
            job.waiters.append((ticket, place))
        self._changed.notify(min(new, len(self._lanes)))

    def _work(self) -> None:
        while True:
            with self._changed:
                batch, dropped = self._line.take(_size)
                for job in dropped:
                    del self._flying[job.key]
                if batch or dropped:
                    self._on_line(self._line.tokens)
                if not batch:
                    if self._closed:
                        return
                    self._pace.rest()
                    self._changed.wait()
                    continue
                started = time.perf_counter()
                for job in batch:
                    for ticket, _ in job.waiters:
                        ticket.started = ticket.started or started
            error: Exception | None = None
            rows: NDArray[np.float32] | None = None
            try:
                rows = batch[0].model.compute([job.text for job in batch], batch[0].output)
            except Exception as problem:  # whatever it is, a request waits for an answer
                logger.exception("a batch failed")
                error = problem
            self._finish(batch, rows, error)
            tokens = len(batch) * len(batch[0].text.ids)
            self._on_batch(len(batch), tokens, time.perf_counter() - started)

    def _finish(
        self, batch: Sequence[Job], rows: NDArray[np.float32] | None, error: Exception | None
    ) -> None:
        ready: list[Ticket] = []
        tokens = len(batch) * len(batch[0].text.ids)
        with self._changed:
            self._pace.note(tokens, time.perf_counter())
            for number, job in enumerate(batch):
                del self._flying[job.key]
                for ticket, place in job.waiters:
                    ticket.rows[place] = None if rows is None else rows[number]
                    ticket.left -= 1
                    if ticket.live and (ticket.left == 0 or error is not None):
                        ready.append(ticket)
        for ticket in ready:
            try:
                ticket.future.get_loop().call_soon_threadsafe(_resolve, ticket.future, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

    def close(self) -> None:
        """Compute what waits, then end the lanes."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for lane in self._lanes:
            lane.join()


def _size(length: int) -> int:
    return max(1, BATCH_PIECES // length)


def _resolve(future: "asyncio.Future[None]", error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
