"""The text contract: what happens to a string before the tokenizer sees it.

* Unicode NFC: `и` + U+0306 becomes `й`, `е` + U+0308 becomes `ё`. Both letters are kept: never
folded to `и` or `е`.
* Lone surrogates (not encodable in UTF-8) become U+FFFD, one each.
* NUL and other control characters are left to the tokenizer's BertNormalizer, which drops them.
* Case is left to the tokenizer, too.
"""

import re
import unicodedata

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
    text = replace_surrogates(text)
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)
