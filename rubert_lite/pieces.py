"""From texts to pieces: the text contract, the length bounds and the tokenizer, in that order.

Nothing in the tokenizer bounds the work that a text costs, so characters are cut before it sees
them. What is cut:

* With `C = 101 * max_length`, only the first C characters of a text are read; a run of white space
  counts as one character. A word of up to 100 characters is at least one piece, so C characters of
  such words hold `max_length` pieces: no piece of an ordinary text is lost. It takes words of over
  100 characters (each is one [UNK]) or thousands of characters that the tokenizer drops, such as
  NUL, to lose one.
* Of a long text that is no part of a pair, a beginning that ends before white space is tried first.
  If it fills `max_length` already, the rest cannot change its pieces.

Pieces are cut here, not by the tokenizer: it would keep all that it cuts off, and for a pair every
combination of what it cuts off both texts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from .inputs import Text
from .normalize import normalize_text, normalize_with_places

_WORD_CHARS = 100  # a longer word is one [UNK] for WordPiece
_LIKELY_CHARS = 8  # of a piece, with the white space around it: more than Russian texts have
# White space as BertNormalizer sees it; for Python, some of the controls that it drops are, too.
_SPACE = " \t\n\r\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_WORD = re.compile(f"[^{_SPACE}]+")
_ONE_SPACE = re.compile(f"[{_SPACE}]")


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces of a text or pair, specials included: [CLS] text [SEP] and, of a pair, text [SEP].

    `second` is where the second text of a pair begins, the length if there is none.
    """

    ids: list[int]
    second: int
    cut: bool  # the text had more


@dataclass(frozen=True, slots=True)
class Span:
    """A piece and the characters of the text as given that it covers; none for a special one."""

    id: int
    piece: str
    start: int | None
    stop: int | None


@dataclass(frozen=True, slots=True)
class Placed:
    """All pieces of a text, without specials: uncut, each with its place in the text as given."""

    ids: list[int]
    places: list[tuple[int, int]]  # characters [start, end)
    words: list[int]  # which word each piece belongs to, counted from 0


class PieceReader:
    """A tokenizer without truncation and padding, and the bounds on what it is given."""

    def __init__(self, tokenizer: Tokenizer, *, max_length: int) -> None:
        """Take over a tokenizer, whose truncation and padding are off."""
        self._tokenizer = tokenizer
        self._cls: int = tokenizer.token_to_id("[CLS]")
        self._sep: int = tokenizer.token_to_id("[SEP]")
        self._max_length = max_length
        self._longest = (_WORD_CHARS + 1) * max_length
        self._likely = _LIKELY_CHARS * max_length

    def read(self, texts: Sequence[Text]) -> list[Pieces]:
        """Return the pieces of texts and pairs of texts, none longer than `max_length`."""
        # Which text of a pair is cut depends on the lengths of both: they are read whole.
        short = [self._beginning(t) if isinstance(t, str) else None for t in texts]
        found = self._encode([t if s is None else s for s, t in zip(short, texts, strict=True)])
        again = [
            i for i, s in enumerate(short) if s is not None and len(found[i][0]) < self._max_length
        ]
        if again:  # their beginnings did not fill it
            for i, bodies in zip(again, self._encode([texts[i] for i in again]), strict=True):
                found[i] = bodies
        return [self._pieces(bodies) for bodies in found]

    def split(self, text: str) -> list[str]:
        """Return the pieces of a text as strings, for people."""
        given = normalize_text(bounded(text, self._longest))
        encoding = self._tokenizer.encode(given, add_special_tokens=False)
        return ["[CLS]", *encoding.tokens[: self._max_length - 2], "[SEP]"]

    def spans(self, text: str) -> list[Span]:
        """Return the pieces of a text, uncut, with their places; see `locate`."""
        (placed,) = self.locate([text])
        inner = (
            Span(number, self._tokenizer.id_to_token(number), start, stop)
            for number, (start, stop) in zip(placed.ids, placed.places, strict=True)
        )
        return [
            Span(self._cls, "[CLS]", None, None),
            *inner,
            Span(self._sep, "[SEP]", None, None),
        ]

    def locate(self, texts: Sequence[str]) -> list[Placed]:
        """Return the pieces of texts with their places in the strings that were given.

        Nothing is cut: the work grows with the length of the text.
        """
        given = [normalize_with_places(t) for t in texts]
        encoded = self._tokenizer.encode_batch([t for t, _ in given], add_special_tokens=False)
        found = []
        for encoding, (_, origin) in zip(encoded, given, strict=True):
            places = [(origin[a][0], origin[max(a, b - 1)][1]) for a, b in encoding.offsets]
            words = [-1 if w is None else w for w in encoding.word_ids]
            found.append(Placed(encoding.ids, places, words))
        return found

    def frame(self, first: Sequence[int], second: Sequence[int] | None = None) -> Pieces:
        """Put specials around pieces that fit into `max_length` together."""
        ids = [self._cls, *first, self._sep]
        middle = len(ids)
        if second is not None:
            ids += [*second, self._sep]
        assert len(ids) <= self._max_length
        return Pieces(ids, middle, False)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count the pieces that texts have before they are cut to `max_length`, specials included.

        What stands behind the bound on characters is not counted.
        """
        return [len(body) + 2 for (body,) in self._encode(texts)]

    def _encode(self, texts: Sequence[Text]) -> list[tuple[list[int], ...]]:
        """Return the ids of each text, and of both texts of a pair, without specials."""
        strings: list[str] = []
        for text in texts:
            strings += (text,) if isinstance(text, str) else text
        given = [normalize_text(bounded(s, self._longest)) for s in strings]
        found = self._tokenizer.encode_batch_fast(given, add_special_tokens=False)
        ids = iter([encoding.ids for encoding in found])
        return [(next(ids),) if isinstance(text, str) else (next(ids), next(ids)) for text in texts]

    def _beginning(self, text: str) -> str | None:
        """Return a beginning of whole words that probably fills `max_length`, if text is longer."""
        if len(text) <= 2 * self._likely:
            return None
        space = _ONE_SPACE.search(text, self._likely, 2 * self._likely)
        return None if space is None else text[: space.start()]

    def _pieces(self, bodies: tuple[list[int], ...]) -> Pieces:
        if len(bodies) == 1:
            room = self._max_length - 2
            ids = [self._cls, *bodies[0][:room], self._sep]
            return Pieces(ids, len(ids), len(bodies[0]) > room)
        first, second = bodies
        room = self._max_length - 3
        a, b = shares(len(first), len(second), room=room)
        ids = [self._cls, *first[:a], self._sep, *second[:b], self._sep]
        return Pieces(ids, a + 2, len(first) + len(second) > room)


def shares(first: int, second: int, *, room: int) -> tuple[int, int]:
    """Cut the longer of two texts, and both to a half when both are longer than that.

    It is what the tokenizers library and transformers do under the name "longest first".
    """
    if first + second <= room:
        return first, second
    if first <= second:
        short = min(first, room // 2)
        return short, room - short
    short = min(second, room // 2)
    return room - short, short


def bounded(text: str, longest: int) -> str:
    """Return the first `longest` characters of a text, each run of white space counted as one."""
    if len(text) <= longest:
        return text
    words: list[str] = []
    left = longest
    for match in _WORD.finditer(text):  # ends when it has enough, however long the text is
        words.append(text[match.start() : min(match.end(), match.start() + left)])
        left -= len(words[-1]) + 1
        if left <= 0:
            break
    return " ".join(words)
