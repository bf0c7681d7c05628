"""Connections that wait for nothing for ever, and stay with HTTP/1.1."""

import asyncio
import sys
from contextlib import suppress
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD_BYTES = 16_384  # beyond what came with its first bytes
_OFFERS = (b"upgrade", b"http2-settings")  # headers, and names in the header connection


class BoundedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with bounds that it lacks.

    Its own timer starts after an answer and ends with the next byte: who sends nothing at first, or
    half a head, would keep the connection; so would who reads no answer.

    Offers of another protocol (h2c, as Java's client makes with every request) are declined as RFC
    9110 7.8 has it, by going on as if they were not there: the parser takes what follows such a
    head for the other protocol, and its body would be read as a request.
    """

    head_seconds: ClassVar[float] = 10.0  # for the head of a request, from its first byte

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take what uvicorn gives."""
        super().__init__(*args, **options)
        self._head_bytes: int | None = None  # of the head that is arriving
        self._timer: asyncio.TimerHandle | None = None
        self._of_head = False  # what the timer is for
        self._reading: asyncio.TimerHandle | None = None  # looks whether the client reads

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request as long as between two of them."""
        super().connection_made(transport)
        self._start(self.timeout_keep_alive, of_head=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._stop()
        self._watch_no_more()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Note that an answer waits for its reader."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Note that the most of it is read."""
        self._watch_no_more()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection."""
        if not self.transport.is_closing():
            self._end()

    def on_message_begin(self) -> None:
        """Note that a head has begun."""
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that it is whole."""
        self._head_bytes = None
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        if not self.parser.should_upgrade():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Read on; start or end the timer by what is missing now."""
        goes_on = self._head_bytes is not None  # else a body may stand before it in `data`
        self._unset_keepalive_if_required()
        self._parse(data)
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

    def _parse(self, data: bytes) -> None:
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                if self.parser.get_method() == b"CONNECT":
                    self.send_400_response("CONNECT: this is no proxy")
                    return
                # The same again without the offer, then what came behind it.
                data = self._head_without_offer() + data[offer.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return

    def _head_without_offer(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b" ".join((self.parser.get_method(), self.url, b"HTTP/" + version))]
        for name, value in self.headers:
            if name == b"connection":
                words = [word.strip() for word in value.split(b",")]
                value = b", ".join(w for w in words if w.lower() not in _OFFERS)
            if name not in _OFFERS and (value or name != b"connection"):
                lines.append(name + b": " + value)
        return b"\r\n".join(lines) + b"\r\n\r\n"

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
            self._end()

    def _end(self) -> None:
        """Close; what was answered already is sent as long as the client reads."""
        self.transport.close()
        self._watch()

    def _watch(self, before: int | None = None) -> None:
        """Give a client up that has read nothing for as long as an idle one is kept."""
        if not self.transport.get_write_buffer_size():
            return
        waiting = self._unread()
        if before is not None and waiting >= before:
            self.transport.abort()
        else:
            self._watch_no_more()
            self._reading = self.loop.call_later(self.timeout_keep_alive, self._watch, waiting)

    def _unread(self) -> int:
        """Return the bytes that the client has not taken, those in the kernel's buffer with them.

        The kernel asks for more only when a third of its buffer is free, which takes a slow client
        longer than it takes an idle connection to end.
        """
        queued = bytes(4)
        with suppress(OSError, ValueError):  # closed meanwhile
            socket = self.transport.get_extra_info("socket")
            queued = ioctl(socket.fileno(), TIOCOUTQ, queued)
        return self.transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    def _watch_no_more(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None


def bounded(head_seconds: float) -> type[BoundedProtocol]:
    """Return the protocol with this bound; uvicorn makes one for each connection."""
    return type("BoundedProtocol", (BoundedProtocol,), {"head_seconds": head_seconds})
