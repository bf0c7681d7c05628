"""What a text is to the line: cleaned, cut, hashed."""

import re
from hashlib import blake2b

from rubert_lite.normalize import normalize_text

_SPACE = re.compile(r"\s+")
_SENTENCE_END = re.compile(r"[.!?…]+[»\")\]]*\s")


def text_hash(text: str) -> int:
    """Hash a text to 64 bits, the same on every machine (BLAKE2b)."""
    return int.from_bytes(blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


def is_valid(key: int, share: float) -> bool:
    """Tell whether the text with this hash belongs to the validation split."""
    # The low bits choose the bucket, so the high ones must choose the split.
    return (key >> 32) < share * 2**32


def clean_text(text: str) -> str:
    """Apply the text contract and make every run of white space one space."""
    return _SPACE.sub(" ", normalize_text(text)).strip()


def split_text(text: str, *, max_chars: int) -> list[str]:
    """Cut a text longer than `max_chars` after a sentence, else after a word, else anywhere.

    Cutting the text, not its tokens, keeps teacher and student on the same characters.
    """
    parts = []
    start = 0  # not `text = text[cut:]`: that would copy the rest for every part
    while len(text) - start > max_chars:
        window = text[start : start + max_chars + 1]
        ends = [m.end() for m in _SENTENCE_END.finditer(window)]
        cut = ends[-1] if ends and ends[-1] > max_chars // 3 else window.rfind(" ") + 1
        cut = min(cut, max_chars) if cut > 0 else max_chars
        parts.append(window[:cut].strip())
        start += cut
        while start < len(text) and text[start].isspace():
            start += 1
    return [*parts, text[start:]] if start < len(text) else parts


def split_sentences(text: str) -> list[str]:
    """Cut a cleaned text after every sentence."""
    ends = [m.end() for m in _SENTENCE_END.finditer(text)]
    starts = [0, *ends]
    return [text[a:b].strip() for a, b in zip(starts, [*ends, len(text)], strict=True) if a < b]
