"""Connections that do not wait for ever for a first byte, or for the rest of a head."""

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD_BYTES = 16_384  # beyond what came with its first bytes


class BoundedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with bounds that it lacks.

    Its own timer starts after an answer and ends with the next byte: who sends nothing at first, or
    half a head, would keep the connection.
    """

    head_seconds: ClassVar[float] = 10.0  # for the head of a request, from its first byte

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take what uvicorn gives."""
        super().__init__(*args, **options)
        self._head_bytes: int | None = None  # of the head that is arriving
        self._timer: asyncio.TimerHandle | None = None
        self._of_head = False  # what the timer is for

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request as long as between two of them."""
        super().connection_made(transport)
        self._start(self.timeout_keep_alive, of_head=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._stop()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Note that a head has begun."""
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that it is whole."""
        self._head_bytes = None
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Read on; start or end the timer by what is missing now."""
        goes_on = self._head_bytes is not None  # else a body may stand before it in `data`
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._head_bytes is not None:
            if goes_on:
                self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self.send_400_response(f"head of the request: more than {_HEAD_BYTES} bytes")
            elif not self._of_head:
                self._start(self.head_seconds, of_head=True)
        elif self._answering():
            self._stop()
        elif self._timer is None:  # the rest of a body whose request is answered already
            self._start(self.timeout_keep_alive, of_head=False)

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start(self, seconds: float, *, of_head: bool) -> None:
        self._stop()
        self._of_head = of_head
        self._timer = self.loop.call_later(seconds, self._late)

    def _stop(self) -> None:
        self._of_head = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self._answering():  # an earlier request of this connection
            self._start(self.head_seconds, of_head=self._of_head)
        else:
            self.transport.close()


def bounded(head_seconds: float) -> type[BoundedProtocol]:
    """Return the protocol with this bound; uvicorn makes one for each connection."""
    return type("BoundedProtocol", (BoundedProtocol,), {"head_seconds": head_seconds})
