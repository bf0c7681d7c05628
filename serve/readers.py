"""Threads that read texts: long ones would hold the event loop up, and need a line of their own.

* Its length is bounded as that of the lanes is, in what waits and in the time that this takes.
* Fair by characters: a request of a million does not hold up one of five thousand.
* What nobody waits for any more, because the client left or its time is over, is not begun; what
  is begun ends at the next part.
"""

import asyncio
import heapq
import math
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

from rubert_lite.inputs import Text

from .faults import Unavailable
from .pace import Pace, check_room

R = TypeVar("R")
T = TypeVar("T", bound=Text)

_START_RATE = 1_000_000.0  # characters a second, until it is measured
_PART_CHARS = 32_768  # some milliseconds of work


@dataclass(eq=False)
class _Job:
    """The texts of one request."""

    chars: int
    parts: Iterator[Any]
    done: "Future[list[Any]]" = field(default_factory=Future)
    taken: bool = False
    live: bool = True  # somebody waits for it


class Readers:
    """Threads, and the line of what waits for one."""

    def __init__(
        self, *, threads: int, max_queue_chars: int, max_queue_seconds: float = math.inf
    ) -> None:
        """Start the threads.

        The line may hold `max_queue_chars`; while those in it take more than `max_queue_seconds`,
        it takes no others.
        """
        self._limit = max_queue_chars
        self._patience = max_queue_seconds
        self._line: list[tuple[int, int, _Job]] = []  # heap by rank
        self._numbers = count()
        self._clock = 0  # rank of the last job taken
        self._waiting = 0  # characters of jobs that are wanted and not begun
        self._pace = Pace(_START_RATE)
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"reader-{i}", daemon=True)
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queued_chars(self) -> int:
        """Characters that wait for a thread."""
        return self._waiting

    def check_room(self) -> None:
        """Raise Overloaded if the line takes nothing more: known before a request is read."""
        self._admit(0)

    async def read(self, chars: int, parts: Iterator[R], *, admitted: bool = False) -> list[R]:
        """Return what the iterator gives, one part after the other, in a thread.

        `chars` is the work, in characters. Raises Overloaded when the line is full, unless the
        request is `admitted` already, Unavailable when it is closed, and what the iterator raises.
        """
        job = _Job(chars, parts)
        with self._changed:
            if self._closed:
                raise Unavailable("the server is stopping: ask another one")
            if not admitted:
                self._admit(chars)
            heapq.heappush(self._line, (self._clock + chars, next(self._numbers), job))
            self._waiting += chars
            self._changed.notify()
        try:
            return await asyncio.wrap_future(job.done)
        finally:
            with self._changed:
                job.live = False
                if not job.taken:
                    self._waiting -= chars

    def _admit(self, chars: int) -> None:
        check_room(
            self._waiting,
            chars,
            most=self._limit,
            seconds=self._patience,
            rate=self._pace.rate,
            unit="characters",
        )

    def _work(self) -> None:
        while True:
            with self._changed:
                job = self._next()
                if job is None:
                    if self._closed:
                        return
                    self._pace.rest()
                    self._changed.wait()
                    continue
            _do(job)
            with self._changed:
                if job.live:
                    self._pace.note(job.chars, time.perf_counter())
                else:
                    self._pace.rest()  # how much of it was read is not known

    def _next(self) -> _Job | None:
        while self._line:
            rank, _, job = heapq.heappop(self._line)
            if job.live and job.done.set_running_or_notify_cancel():
                job.taken = True
                self._waiting -= job.chars
                self._clock = max(self._clock, rank)
                return job
        return None

    def close(self) -> None:
        """Read what waits, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()


def _do(job: _Job) -> None:
    found: list[Any] = []
    try:
        for part in job.parts:
            found.append(part)
            if not job.live:
                break
    except BaseException as error:  # a panic of the tokenizer is no Exception
        job.done.set_exception(error)
    else:
        job.done.set_result(found)


def count_chars(text: Text) -> int:
    """Return the length of a text, or of both of a pair."""
    return len(text) if isinstance(text, str) else sum(map(len, text))


def parts_of(texts: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut a list into stretches that are soon read: up to 32,768 characters, or one text."""
    start = chars = 0
    for place, text in enumerate(texts):
        chars += count_chars(text)
        if chars > _PART_CHARS and place > start:
            yield texts[start:place]
            start, chars = place, count_chars(text)
    yield texts[start:]
