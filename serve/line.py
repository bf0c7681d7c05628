"""The texts that wait for a lane, in their order; guarded by the scheduler's lock."""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rubert_lite import Model
from rubert_lite.model import Output
from rubert_lite.pieces import Pieces


@dataclass(eq=False)
class Ticket:
    """What one request waits for."""

    future: "asyncio.Future[None]"
    rows: list[NDArray[np.float32] | None]
    left: int
    submitted: float
    started: float = 0.0
    live: bool = True


@dataclass(eq=False)
class Job:
    """One distinct text."""

    model: Model
    output: Output
    text: Pieces
    waiters: list[tuple[Ticket, int]]
    key: tuple[Any, ...]
    rank: int = 0
    taken: bool = False

    @property
    def group(self) -> tuple[int, Output, int]:
        """What has to be equal in a batch."""
        return id(self.model), self.output, len(self.text.ids)

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits."""
        return any(ticket.live for ticket, _ in self.waiters)


@dataclass
class Line:
    """The texts that wait; guarded by the scheduler's lock."""

    first: list[tuple[int, int, Job]] = field(default_factory=list)  # heap by rank
    groups: dict[tuple[int, Output, int], deque[Job]] = field(default_factory=dict)
    tokens: int = 0
    clock: int = 0  # rank of the last text taken
    numbers: "count[int]" = field(default_factory=count)

    def add(self, job: Job, rank: int) -> None:
        """Let a job wait, at its rank."""
        self.place(job, rank)
        self.groups.setdefault(job.group, deque()).append(job)
        self.tokens += len(job.text.ids)

    def place(self, job: Job, rank: int) -> None:
        """Give a job its place; a former one is passed over, as the job is taken by then."""
        job.rank = rank
        heapq.heappush(self.first, (rank, next(self.numbers), job))

    def take(self, size: Callable[[int], int]) -> tuple[list[Job], list[Job]]:
        """Return the jobs of the next batch, and those that nobody wants any more."""
        dropped: list[Job] = []
        while self.first:
            rank, _, head = heapq.heappop(self.first)
            if head.taken:
                continue
            self.clock = max(self.clock, rank)
            group = self.groups[head.group]
            batch: list[Job] = []
            room = size(len(head.text.ids))
            candidates = [head]
            while len(batch) < room and candidates:
                job = candidates.pop()
                if not job.taken:
                    job.taken = True
                    self.tokens -= len(job.text.ids)
                    (batch if job.wanted else dropped).append(job)
                if group:
                    candidates.append(group.popleft())
            group.extendleft(candidates)
            while group and group[0].taken:  # a full batch left what it took, such as its head
                group.popleft()
            if not group:
                del self.groups[head.group]
            if batch:
                return batch, dropped
        return [], dropped
