"""Errors of the server, and what each protocol calls them.

Overloaded       429 + Retry-After   the queue is full
TooLarge         413                 body, text or request beyond a limit
Unavailable      503                 draining, past the deadline, or the graph failed
Unauthorized     401
Refused          408, 415            a slow body, a type that is not read
InputError       422                 OpenAI and Open Inference routes: 400
"""

import math
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from rubert_lite.errors import InputError, ModelNotFound, RubertLiteError

_TYPES = ("str", "int", "float", "bool")  # in pydantic's places
_AN_OBJECT = "Input should be an object"  # pydantic names our class


class Overloaded(RubertLiteError):
    """The queue is full; `retry_after` says in how many seconds it should have room."""

    def __init__(self, message: str, retry_after: float) -> None:
        """Keep the seconds, rounded up."""
        super().__init__(message)
        self.retry_after = max(1, math.ceil(retry_after))


class TooLarge(InputError):
    """A request is beyond a limit."""


class Refused(InputError):
    """A request of a kind that is not read; `status` says which kind of refusal."""

    def __init__(self, status: int, message: str) -> None:
        """Keep the HTTP status: 408 or 415."""
        super().__init__(message)
        self.status = status


class Empty(InputError):
    """A request has no texts."""


class Unauthorized(RubertLiteError):
    """A key is missing or wrong."""


class Unavailable(RubertLiteError):
    """The server cannot answer now."""


@dataclass(frozen=True)
class Fault:
    """An error as HTTP knows it."""

    status: int
    kind: str  # text-embeddings-inference's error_type
    message: str
    retry_after: int | None = None
    allow: str | None = None  # methods of the route, of a 405


def fault_of(error: Exception) -> Fault:
    """Classify an error; what has no name of its own is a 500 without details."""
    if isinstance(error, Overloaded):
        return Fault(429, "Overloaded", str(error), error.retry_after)
    if isinstance(error, Unauthorized):
        return Fault(401, "Unauthorized", str(error))
    if isinstance(error, Unavailable):
        return Fault(503, "Unhealthy", str(error), 1)
    if isinstance(error, HTTPException):  # the router's
        kind = "MethodNotAllowed" if error.status_code == 405 else "NotFound"
        allow = (error.headers or {}).get("Allow")
        return Fault(error.status_code, kind, error.detail.lower(), allow=allow)
    if isinstance(error, ModelNotFound):
        return Fault(404, "NotFound", str(error))
    if isinstance(error, Refused):
        return Fault(error.status, "Validation", str(error))
    if isinstance(error, TooLarge):
        return Fault(413, "Validation", str(error))
    if isinstance(error, Empty):
        return Fault(400, "Empty", str(error))
    if isinstance(error, InputError):
        return Fault(422, "Validation", str(error))
    if isinstance(error, ValidationError):
        return Fault(422, "Validation", _explain(error))
    if isinstance(error, RubertLiteError):
        return Fault(503, "Backend", str(error))
    return Fault(500, "Backend", "internal error: see the server's log")


def _explain(error: ValidationError) -> str:
    """Say what is wrong where, without the value: it may be a user's text."""
    errors = error.errors(include_input=False, include_url=False)
    depth: dict[object, int] = {}  # of what may be of several types, the nearest miss is told
    for found in errors:
        place = found["loc"]
        depth[place[:1]] = max(depth.get(place[:1], 0), len(place))
    problems = []
    for found in errors:
        place = found["loc"]
        if not any(map(_is_type, place)) or len(place) == depth[place[:1]]:
            told = _AN_OBJECT if found["type"] == "model_type" else found["msg"]
            problems.append(f"{_place(place)}: {told}" if place else told)
    return "; ".join(dict.fromkeys(problems))


def _place(parts: tuple[int | str, ...]) -> str:
    """Write a place in a request, such as input[0]; pydantic names the types that it tried, too."""
    place = ""
    for part in parts:
        if isinstance(part, int):
            place += f"[{part}]"
        elif not _is_type(part):
            place += f".{part}" if place else part
    return place


def _is_type(part: int | str) -> bool:
    # Classes, unlike fields, begin with a capital.
    return isinstance(part, str) and (part in _TYPES or "[" in part or part[:1].isupper())


def respond(path: str, fault: Fault) -> Response:
    """Write a fault as the protocol of a path does."""
    status = fault.status
    if status == 422 and path.startswith(("/v1/", "/v2/")):
        status = 400
    headers = {}
    if fault.retry_after is not None:
        headers["retry-after"] = str(fault.retry_after)
    if fault.allow is not None:
        headers["allow"] = fault.allow
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    body = error_body(path, fault, status)
    return Response(orjson.dumps(body), status, headers, media_type="application/json")


def error_body(path: str, fault: Fault, status: int) -> dict[str, Any]:
    """Return the JSON of an error."""
    if path.startswith("/v1/"):
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
            status, "invalid_request_error" if status < 500 else "server_error"
        )
        return {
            "error": {"message": fault.message, "type": kind, "param": None, "code": fault.kind}
        }
    if path.startswith("/v2"):
        return {"error": fault.message}
    return {"error": fault.message, "error_type": fault.kind}
