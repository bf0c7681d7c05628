"""The smileys of people's own texts as labels of mood: they cost nobody's work.

Whoever ends a reply with `))` or `((`, or with a face, says how it is meant (distant supervision:
J. Read, ACL 2005 student workshop; Go, Bhayani and Huang, 2009). In Russian a bracket without eyes
is the commonest smiley, so brackets count where nothing opens or closes them.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from rubert_lite.errors import InputError

from .corpus_text import clean_text, text_hash
from .reading import read_texts
from .tasks import Records

_GLAD = "😀😁😂😃😄😅😆😊😋😍😎😘🙂🤗🤣🤩🥰☺❤💕💖👍👏🎉"
_SAD = "☹😒😓😔😕😖😞😟😠😡😢😣😤😥😩😫😭😰🙁🤬💔👎"
_EYES = "[:;=]['’]?-?"
_FACES = {
    "glad": re.compile(rf"{_EYES}(?:\)|D\b)|[{_GLAD}]"),
    "sad": re.compile(rf"{_EYES}\(|[{_SAD}]"),
}
# After a word, its end mark or a space; `1)` is a number in a list.
_BARE = {
    "glad": re.compile(r"(?<=[^\W\d]|[!?.,…\s])\)+(?=\W|$)"),
    "sad": re.compile(r"(?<=[\w!?.,…\s])\((?=[(\s]|$)"),
}
_MARKS = re.compile(
    rf"{_EYES}(?:[()]|D\b)|[()\u200d\ufe0e\ufe0f\u2600-\u27bf\U0001f000-\U0001faff]"
)


def mood(text: str) -> str:
    """Return `glad`, `sad`, `none` for a text without smileys, or nothing where they disagree."""
    closed = text.count(")") - text.count("(")
    bare = {"glad": closed > 0, "sad": closed < 0}
    found = [
        name
        for name, faces in _FACES.items()
        if faces.search(text) or (bare[name] and _BARE[name].search(text))
    ]
    return "none" if not found else found[0] if len(found) == 1 else ""


def hide_smileys(text: str) -> str:
    """Return the text without brackets, faces and pictographs, whatever its mood."""
    return clean_text(_MARKS.sub(" ", text))


def read_moods(path: str) -> Records:
    """Read plain text, a text a line: those that are glad or sad, and as many without smileys.

    The latter are drawn by their hash, at most as many as of the commoner mood. Raises InputError
    for a broken line and where a mood is missing.
    """
    moods: dict[str, dict[str, None]] = {"glad": {}, "none": {}, "sad": {}}
    for line in read_texts(Path(path)):
        if line.text is None:
            raise InputError(f"{line.place}: {line.problem}")
        text = clean_text(line.text)
        if text and (found := mood(text)):
            moods[found][text] = None
    for name in ("glad", "sad"):
        if not moods[name]:
            raise InputError(
                f"{path}: no text with a {name} smiley: expected people's own messages"
            )
    most = max(len(moods["glad"]), len(moods["sad"]))
    plain = sorted(moods["none"], key=text_hash)[:most]
    chosen: dict[str, Iterable[str]] = {**moods, "none": plain}
    pairs = [(text, name) for name, texts in chosen.items() for text in texts]
    return Records(([t for t, _ in pairs],), [name for _, name in pairs])


def both_ways(records: Records) -> Records:
    """Return every text as it is written and, where some of it is left, without its smileys."""
    shown: Sequence[str] = records.texts[0]
    hidden = [hide_smileys(t) for t in shown]
    kept = [i for i, text in enumerate(hidden) if text and text != shown[i]]
    return Records(
        ([*shown, *(hidden[i] for i in kept)],),
        [*records.labels, *(records.labels[i] for i in kept)],
    )
