"""What every request passes before it costs anything: key, type, size; then it is noted."""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rubert_lite.errors import InputError

from .faults import Refused, TooLarge, Unauthorized, Unavailable, fault_of, respond
from .service import Service
from .settings import Settings

access = logging.getLogger("rubert_lite.access")

_SHA256 = re.compile(r"sha256:([0-9A-Fa-f]{64})")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OPEN = ("/health", "/v2/health/")  # asked without a key: probes have none
_TYPES = ("application/json", "application/octet-stream", "text/plain")


class Keys:
    """The keys that open the server, as SHA-256; comparing takes the same time for all."""

    def __init__(self, settings: Settings) -> None:
        """Read the keys of the settings and of their file."""
        self._settings = settings
        self.use(self.read())

    def read(self) -> Sequence[bytes]:
        """Read them again, for `use`; InputError for a file or setting without any, or broken."""
        setting = self._settings.api_keys.get_secret_value()
        found = _digests("api keys", enumerate(setting.split(","), start=1))
        if setting and not found:
            raise InputError("api keys: none between the commas: give one, or leave it empty")
        path = self._settings.api_keys_file
        if path is not None:
            of_file = _digests(str(path), _read_keys(path))
            if not of_file:
                raise InputError(f"{path}: no keys: expected one a line")
            found += of_file
        return found

    def use(self, digests: Sequence[bytes]) -> None:
        """Let these open the server from now on; none: everyone may come in."""
        self._open_to = tuple(digests)

    def check(self, header: str | None) -> None:
        """Raise Unauthorized unless the header holds one of the keys, or none is needed."""
        if not self._open_to:
            return
        kind, _, key = (header or "").partition(" ")
        # Headers are decoded as Latin-1: these are the bytes that came, UTF-8 of the key or not.
        shown = hashlib.sha256(key.strip(" \t").encode("latin-1", "replace")).digest()
        # All of them, so that time does not tell which.
        same = [hmac.compare_digest(shown, digest) for digest in self._open_to]
        if kind.lower() != "bearer" or not any(same):
            raise Unauthorized(
                "key missing or wrong: expected the header Authorization: Bearer KEY"
            )


def _read_keys(path: Path) -> list[tuple[int, str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    return [(n, line) for n, line in enumerate(lines, start=1) if not line.startswith("#")]


def _digests(where: str, keys: Iterable[tuple[int, str]]) -> list[bytes]:
    """Return the SHA-256 of each key; its number names it in the message if it is none."""
    found = []
    for number, given in keys:
        key = given.strip()
        if not key:
            continue
        digest = _SHA256.fullmatch(key)
        if key.startswith("sha256:") and digest is None:
            raise InputError(f"{where}, {number}: sha256: expected 64 hexadecimal digits")
        found.append(bytes.fromhex(digest[1]) if digest else hashlib.sha256(key.encode()).digest())
    return found


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(
        self, app: ASGIApp, service: Service, keys: Keys, *, routes: Sequence[Route] = ()
    ) -> None:
        """Guard an application; `routes` are those that logs and metrics may name."""
        self._app = app
        self._routes = routes
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
                # Before reading what is refused anyway.
                line = self.service.readers if path == "/tokenize" else self.service.scheduler
                line.check_room()
                body = await self._body(headers, receive)
                await self._until_gone(scope, body, receive, noted)
            else:
                await self._app(scope, receive, noted)
        except _Gone:
            status = 499
        except asyncio.CancelledError:
            if not self.service.draining:
                raise
            if not status:  # the time for the last answers is over
                late = Unavailable("the server has stopped: ask another one")
                await respond(path, fault_of(late))(scope, receive, noted)
        except Exception as error:
            fault = fault_of(error)
            if fault.status == 500:
                access.exception("request %s failed", number)
            if not status:
                await respond(path, fault)(scope, receive, noted)
        finally:
            self._note(scope, number, status, time.perf_counter() - began)

    def _admit(self, path: str, headers: Headers) -> None:
        open_to_all = path == "/" or path.startswith(_OPEN)  # the page asks for a key itself
        if path == "/metrics" and self.service.settings.open_metrics:
            open_to_all = True
        if not open_to_all:
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
        if "route" not in scope:  # refused before it was routed; for spans, too
            fits = (r for r in self._routes if r.matches(scope)[0] is not Match.NONE)
            scope["route"] = next(fits, None)
        route = getattr(scope["route"], "path_format", "other")
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
