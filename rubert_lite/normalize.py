"""The text contract: what happens to a string before the tokenizer sees it.

* Unicode NFC: `и` + U+0306 becomes `й`, `е` + U+0308 becomes `ё`. Both letters are kept: never
folded to `и` or `е`.
* Stress marks (U+0301 after a Russian vowel) are dropped: `за́мок` is read as `замок`.
* Lone surrogates (not encodable in UTF-8) become U+FFFD, one each.
* NUL and other control characters are left to the tokenizer's BertNormalizer, which drops them.
* Case is left to the tokenizer, too.
"""

import re
import unicodedata

_STRESS = "\u0301"
_STRESSED = re.compile("(?<=[аеёиоуыэюяАЕЁИОУЫЭЮЯ])\u0301+")
_SURROGATES = re.compile("[\ud800-\udfff]")


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
    text = _compose(replace_surrogates(text))
    while _STRESS in text and _STRESSED.search(text):  # what stood apart may now compose
        text = _compose(_STRESSED.sub("", text))
    return text


def _compose(text: str) -> str:
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)
