"""What callers may pass: checks that say which text is wrong, and chunks of a stream of texts."""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from .errors import InputError

Text: TypeAlias = str | tuple[str, str]
Check: TypeAlias = Callable[[object, int], Text]
_T = TypeVar("_T")

CHUNK = 2048  # texts that are tokenised together, and the most rows of an array of iter_encode
_CHUNK_CHARS = 1 << 20  # of a chunk: long texts come in smaller chunks, so that memory stays flat


def check_iterable(texts: object) -> None:
    """Refuse a single string, a table or mapping, and what is no collection or stream."""
    kind = type(texts).__name__
    if isinstance(texts, str | bytes):
        raise InputError(f"texts: a single {kind}, expected a list: pass [text]")
    if not isinstance(texts, Iterable):
        raise InputError(f"texts: {kind}, expected a list of strings")
    axes = getattr(texts, "ndim", 1)  # of arrays and data frames
    if isinstance(texts, Mapping) or axes != 1:
        what = kind if axes == 1 else f"{kind} of {axes} dimensions"
        raise InputError(f"texts: a {what}, expected a list of strings, such as one column of it")


def check_collection(texts: object) -> None:
    """Refuse also a stream, whose length is not known."""
    check_iterable(texts)
    if not hasattr(texts, "__len__"):
        raise InputError(
            f"texts: {type(texts).__name__} has no length: pass a list, or use iter_encode"
        )


def check_text(text: object, position: int) -> str:
    """Return a text; `position` names it in the message if it is none."""
    if isinstance(text, str):
        return text
    raise InputError(f"texts[{position}]: {type(text).__name__}, expected a string")


def check_text_or_pair(text: object, position: int) -> Text:
    """Return a text, or a pair of texts as a tuple."""
    if isinstance(text, str):
        return text
    if isinstance(text, tuple | list) and len(text) == 2:
        first, second = text
        if isinstance(first, str) and isinstance(second, str):
            return first, second
    kind = type(text).__name__
    raise InputError(f"texts[{position}]: {kind}, expected a string or a pair of strings")


def check_single(text: object, position: int) -> str:
    """Return a text; a pair is refused with the reason."""
    found = check_text_or_pair(text, position)
    if isinstance(found, str):
        return found
    raise InputError(f"texts[{position}]: a pair, expected a string: the model reads single texts")


def check_pair(pair: object, position: int) -> tuple[str, str]:
    """Return a pair of texts as a tuple."""
    found = None if isinstance(pair, str) else check_text_or_pair(pair, position)
    if isinstance(found, tuple):
        return found
    raise InputError(f"texts[{position}]: a string, expected a pair of strings")


def checking(inputs: str) -> Check:
    """Return the check of what a classifier reads, by `inputs` of its manifest."""
    checks: dict[str, Check] = {"texts": check_single, "pairs": check_pair}
    return checks.get(inputs, check_text_or_pair)


def check_integer(name: str, value: object, *, low: int, high: int | None = None) -> int:
    """Return an integer of low..high (no upper bound if None); a bool is none."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = low - 1
    if isinstance(value, bool) or number < low or (high is not None and number > high):
        expected = f"at least {low}" if high is None else f"{low}..{high}"
        raise InputError(f"{name} = {value!r}: expected {expected}")
    return number


def chunks(texts: Iterable[_T]) -> Iterator[list[_T]]:
    """Cut a stream into lists of up to 2048 texts, fewer if they are long."""
    chunk: list[_T] = []
    characters = 0
    for text in texts:
        chunk.append(text)
        characters += _characters(text)
        if len(chunk) == CHUNK or characters >= _CHUNK_CHARS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _characters(text: Any) -> int:
    if isinstance(text, str):
        return len(text)
    # A pair; anything else is refused later, with its position.
    return sum(len(t) for t in text if isinstance(t, str)) if isinstance(text, Sequence) else 0
