"""One request, from its first look at the model to its answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rubert_lite import Model

from .faults import Unavailable


@dataclass(frozen=True)
class Visit:
    """The model that a request began with, which a reload does not change, and its time."""

    model: Model
    seconds: float  # that reading and computing may take together
    until: float  # when they are over, on the clock of the event loop

    @classmethod
    def begin(cls, model: Model, seconds: float) -> "Visit":
        """Begin now, in a running event loop."""
        return cls(model, seconds, asyncio.get_running_loop().time() + seconds)

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Give up what is done inside when the time is over: Unavailable."""
        try:
            async with asyncio.timeout_at(self.until):
                yield
        except TimeoutError:
            raise Unavailable(f"no answer within {self.seconds:g} s: the server is busy") from None
