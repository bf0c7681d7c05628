"""The text contract: what happens to a string before the tokenizer sees it.

* Unicode NFC: `и` + U+0306 becomes `й`, `е` + U+0308 becomes `ё`. Both letters are kept: never
folded to `и` or `е`.
* Stress marks (U+0301 after a Russian vowel) are dropped: `за́мок` is read as `замок`.
* Of more than 30 combining marks in a row, those beyond are dropped: no text needs them, and to
  put them into order takes their number squared (30: Unicode's stream-safe text, UAX 15).
* Lone surrogates (not encodable in UTF-8) become U+FFFD, one each.
* NUL and other control characters are left to the tokenizer's BertNormalizer, which drops them.
* Case is left to the tokenizer, too.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator

_STRESS = "\u0301"
_STRESSED = re.compile("(?<=[аеёиоуыэюяАЕЁИОУЫЭЮЯ])\u0301+")
_SURROGATES = re.compile("[\ud800-\udfff]")
_MARKS = 30
# No combining mark is a letter, number, white space or ASCII: few texts have such runs.
_MAYBE_MARKS = re.compile(rf"[^\w\s\x00-\x7f]{{{_MARKS + 1},}}")
_RUN = re.compile(r"\s+|\S+")


def replace_surrogates(text: str) -> str:
    """Replace each lone surrogate by U+FFFD; other text comes back as the same object."""
    # isascii() costs nothing and covers most machine text; encoding is the fastest full check.
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text)
    return text


def normalize_text(text: str) -> str:
    """Apply the text contract (see the module's description) to one string."""
    text = _compose(_bound_marks(replace_surrogates(text)))
    while _STRESS in text and _STRESSED.search(text):  # what stood apart may now compose
        text = _compose(_STRESSED.sub("", text))
    return text


def _bound_marks(text: str) -> str:
    return text if text.isascii() else _MAYBE_MARKS.sub(_first_marks, text)


def _first_marks(found: re.Match[str]) -> str:
    kept = []
    marks = 0
    for character in found[0]:
        marks = marks + 1 if _is_mark(character) else 0
        if marks <= _MARKS:
            kept.append(character)
    return "".join(kept)


def _is_mark(character: str) -> bool:
    # Three Tibetan vowels have no class of their own and come apart into two marks each.
    return bool(unicodedata.combining(unicodedata.normalize("NFD", character)[0]))


def _may_compose(character: str) -> bool:
    """Whether it may become one with what stands before: a mark, a vowel sign, a part of Hangul."""
    return unicodedata.category(character) in ("Mn", "Mc") or "\u1160" <= character <= "\u11ff"


def _compose(text: str) -> str:
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def normalize_with_places(text: str) -> tuple[str, list[tuple[int, int]]]:
    """Apply the text contract; say of each character where it stood in `text`, as [start, end).

    Where several characters became others together, each of the new ones has all their places.
    """
    whole = normalize_text(text)
    if whole == text:
        return text, [(i, i + 1) for i in range(len(text))]
    places: list[tuple[int, int]] = []
    for run in _RUN.finditer(text):  # nothing composes across white space
        for part, start, end in _parts(run.group(), run.start()):
            places += [(start, end)] * len(part)
    assert len(places) == len(whole)
    return whole, places


def _parts(word: str, start: int) -> Iterator[tuple[str, int, int]]:
    """Yield normalised parts of a word: characters with what composes with them, or the word."""
    whole = normalize_text(word)
    # Some letters compose without a combining mark between them, such as Hangul's.
    for joins in (_is_mark, _may_compose):
        parts = list(_cut(word, start, joins))
        if "".join(p for p, _, _ in parts) == whole:
            return iter(parts)
    return iter([(whole, start, start + len(word))])


def _cut(word: str, start: int, joins: Callable[[str], bool]) -> Iterator[tuple[str, int, int]]:
    begin = 0
    for place in range(1, len(word) + 1):
        if place == len(word) or not joins(word[place]):
            yield normalize_text(word[begin:place]), start + begin, start + place
            begin = place
