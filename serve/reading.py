"""From the bytes of a request to a checked body."""

from typing import TypeVar

import orjson
from pydantic import BaseModel
from starlette.requests import Request

from rubert_lite.errors import InputError

B = TypeVar("B", bound=BaseModel)


async def read_body(request: Request, kind: type[B]) -> B:
    """Parse JSON and check it; InputError without a word of what was sent.

    orjson refuses lone surrogates, NaN and nesting past 1,024: a policy, not an accident.
    """
    return parse(await request.body(), kind)


def parse(data: bytes, kind: type[B]) -> B:
    """Check JSON bytes against a model."""
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"body: not JSON at {place}: {error.msg}") from None
    if not isinstance(values, dict):
        raise InputError(f"body: a JSON {type(values).__name__}, expected an object")
    return kind.model_validate(values)


def as_list(value: str | list[str]) -> list[str]:
    """Put a single text into a list."""
    return [value] if isinstance(value, str) else value
