"""A lane that computes when it is let, and what asks it."""

import asyncio
import threading
import time

import numpy as np

from rubert_lite.pieces import Pieces


class Slow:
    """A model that computes when it is let, and says what it was asked."""

    def __init__(self):
        self.batches = []
        self.let = threading.Semaphore(0)
        self.error = None

    def compute(self, texts, output):
        self.let.acquire()
        if self.error:
            raise self.error
        self.batches.append([t.ids[0] for t in texts])
        return np.array([[t.ids[0]] for t in texts], dtype=np.float32)


def texts(*names: int, length: int = 10) -> list[Pieces]:
    return [Pieces([name] * length, length, False) for name in names]


def ask(scheduler, slow, *names, length=10):
    return asyncio.ensure_future(scheduler.compute(slow, texts(*names, length=length), "pooled"))


def firsts(found):
    """Return the first number of each row: whose it is."""
    return [row[0] for row in found.rows]


async def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "did not happen"
        await asyncio.sleep(0.001)


async def busy(scheduler, slow):
    """Occupy the only lane, so that what follows has to wait."""
    first = ask(scheduler, slow, 999, length=3)
    await until(lambda: scheduler._line.numbers.__reduce__()[1][0] and not scheduler.queued_tokens)
    return first
