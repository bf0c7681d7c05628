"""What every request passes before it costs anything: key, type, size; then it is noted."""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rubert_lite.errors import InputError

from .faults import Refused, TooLarge, Unauthorized, fault_of, respond
from .service import Service
from .settings import Settings

access = logging.getLogger("rubert_lite.access")

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OPEN = ("/health", "/v2/health/")  # asked without a key: probes have none
_TYPES = ("application/json", "application/octet-stream", "text/plain")


class Keys:
    """The keys that open the server, as SHA-256; comparing takes the same time for all."""

    def __init__(self, settings: Settings) -> None:
        """Read the keys of the settings and of their file."""
        self._settings = settings
        self._digests: Sequence[bytes] = ()
        self.reload()

    def reload(self) -> None:
        """Read them again; raises InputError, and keeps the old ones, for a broken file."""
        given = self._settings.api_keys.get_secret_value().split(",")
        path = self._settings.api_keys_file
        if path is not None:
            given += _read_keys(path)
        self._digests = tuple(_digest(key.strip()) for key in given if key.strip())
        if path is not None and not self._digests:
            raise InputError(f"{path}: no keys: expected one a line")

    def check(self, header: str | None) -> None:
        """Raise Unauthorized unless the header holds one of the keys, or none is needed."""
        if not self._digests:
            return
        kind, _, key = (header or "").partition(" ")
        shown = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        # All of them, so that time does not tell which.
        same = [hmac.compare_digest(shown, digest) for digest in self._digests]
        if kind.lower() != "bearer" or not any(same):
            raise Unauthorized(
                "key missing or wrong: expected the header Authorization: Bearer KEY"
            )


def _read_keys(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    return [line for line in lines if not line.startswith("#")]


def _digest(key: str) -> bytes:
    if key.startswith("sha256:"):
        try:
            return bytes.fromhex(key.removeprefix("sha256:"))
        except ValueError:
            raise InputError("api keys: sha256: expected 64 hexadecimal digits") from None
    return hashlib.sha256(key.encode("utf-8")).digest()


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, service: Service, keys: Keys) -> None:
        """Guard an application."""
        self._app = app
        self.service = service
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # no websockets
        began = time.perf_counter()
        headers = Headers(scope=scope)
        number = headers.get("x-request-id", "")
        if not _ID.fullmatch(number):
            number = secrets.token_hex(8)
        status = 0  # until the answer begins

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = MutableHeaders(scope=message)
                added["x-request-id"] = number
                added["x-total-time"] = f"{1000 * (time.perf_counter() - began):.3f}"
                if self.service.draining:
                    added["connection"] = "close"
            await send(message)

        path = str(scope["path"])
        try:
            self._admit(path, headers)
            if scope["method"] == "POST":
                if path != "/tokenize":
                    self.service.scheduler.check_room()  # before reading what is refused anyway
                body = await self._body(headers, receive)
                await self._until_gone(scope, body, receive, noted)
            else:
                await self._app(scope, receive, noted)
        except _Gone:
            status = 499
        except Exception as error:
            fault = fault_of(error)
            if fault.status == 500:
                access.exception("request %s failed", number)
            if not status:
                await respond(path, fault)(scope, receive, noted)
        finally:
            self._note(scope, number, status, time.perf_counter() - began)

    def _admit(self, path: str, headers: Headers) -> None:
        if path != "/" and not path.startswith(_OPEN):  # the page asks for a key itself
            self.keys.check(headers.get("authorization"))

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """Read a body within the limits of size and time."""
        limit = self.service.settings.max_body_bytes
        kind = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind not in _TYPES:
            raise Refused(415, f"content-type {kind[:40]!r}: expected application/json")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(415, "content-encoding: compressed bodies are not read")
        given = headers.get("content-length")
        if given is not None and given.isdecimal() and int(given) > limit:
            raise TooLarge(f"body: {given} bytes, expected at most {limit}")
        seconds = self.service.settings.body_timeout_seconds
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise TooLarge(f"body: more than {limit} bytes")
                    more = message.get("more_body", False)
        except TimeoutError:
            raise Refused(408, f"body: not whole after {seconds:g} s") from None
        return b"".join(parts)

    async def _until_gone(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the application as long as its client waits."""
        answer = asyncio.ensure_future(self._app(scope, _replay(body), send))
        left = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({answer, left}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise _Gone
            answer.result()
        finally:
            for task in (answer, left):
                task.cancel()

    def _note(self, scope: Scope, number: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        metrics = self.service.metrics
        metrics.requests.labels(route, str(status)).inc()
        metrics.duration.labels(route).observe(seconds)
        if access.isEnabledFor(logging.INFO):
            access.info(
                "%s %s %d",
                scope["method"],
                route,
                status,
                extra={"request_id": number, "ms": round(1000 * seconds, 3)},
            )


class _Gone(Exception):
    """The client left before its request was whole."""


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _replay(body: bytes) -> Receive:
    """Give the application a body that was read already."""

    async def replayed() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
