"""Texts that nothing may be trained on: those that models are scored on."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rubert_lite.errors import InputError

from .corpus_text import clean_text, split_sentences, text_hash
from .reading import read_records, read_texts, read_whole

_TAG = re.compile(r"</?[A-Za-z]{1,10}>")  # such as <b> around the word that a task is about
_SPACE = re.compile(r"\s+")
_LEAST_SENTENCE = 40  # characters: shorter ones are nobody's own


class HeldOut:
    """The texts of held-out files, and their sentences of 40 characters or more.

    Case, white space and tags do not count: a task may give its words apart, or mark one.
    """

    def __init__(self, paths: Iterable[str], *, loosely: bool = False) -> None:
        """Read files: lines, tab-separated cells, or all strings of JSON and jsonl, nested ones.

        `loosely`: letters and digits alone are compared, ё as е, where a text has any. Raises
        InputError for a file without any text, or with a line that cannot be read.
        """
        self._keys: set[int] = set()
        self._key = _loose_key if loosely else _key
        for path in paths:
            before = len(self._keys)
            for text in _texts(path):
                self._keys.add(self._key(text))
                self._keys.update(self._key(s) for s in _sentences(text))
            if len(self._keys) == before and not any(_texts(path)):
                raise InputError(f"{path}: no text in it: nothing would be held out by it")

    def __contains__(self, text: object) -> bool:
        """Tell whether a text is held out, or holds a long sentence that is."""
        if not self._keys or not isinstance(text, str):
            return False
        key = self._key
        return key(text) in self._keys or any(key(s) in self._keys for s in _sentences(text))


def _texts(path: str) -> Iterator[str]:
    if ".jsonl" in Path(path).suffixes:
        for _, record in read_records(Path(path)):
            yield from _strings(record)
    elif ".json" in Path(path).suffixes:  # such as SQuAD's
        try:
            yield from _strings(json.loads(read_whole(Path(path))))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: not JSON: {error}") from error
    else:
        for line in read_texts(path):
            if line.text is None:  # what cannot be read would not be held out
                raise InputError(f"{line.place}: {line.problem}")
            yield from filter(None, line.text.split("\t"))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        words = [v for v in value if isinstance(v, str)]
        if words:
            yield " ".join(words)  # the tokens of a text
        for part in value:
            if not isinstance(part, str):
                yield from _strings(part)


def _sentences(text: str) -> list[str]:
    return [s for s in split_sentences(clean_text(text)) if len(s) >= _LEAST_SENTENCE]


def _key(text: str) -> int:
    return text_hash(_plain(text))


def _loose_key(text: str) -> int:
    plain = _plain(text).replace("ё", "е")
    return text_hash("".join(filter(str.isalnum, plain)) or plain)


def _plain(text: str) -> str:
    return _SPACE.sub("", _TAG.sub("", clean_text(text))).casefold()
