"""Characters are cut before they cost time; the pieces that are read stay the same."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rubert_lite.normalize import normalize_text
from rubert_lite.pieces import PieceReader, bounded, shares
from rubert_lite.wordpiece import SPECIAL_PIECES, bert_tokenizer_spec

MAX_LENGTH = 6
LIMIT = 101 * MAX_LENGTH
LETTERS = "абвгеийкмнпртё"
PIECES = [
    *SPECIAL_PIECES, *LETTERS, *(f"##{c}" for c in LETTERS), "при", "##вет", "мир", ".", ",", "✓",
]  # fmt: skip
SPEC = json.dumps(bert_tokenizer_spec(PIECES))
SPACES = [" ", "\n", "\t", "\r\n", "\u00a0", "\u2003", "\u3000", "\u2028", "  \n "]


@pytest.fixture(scope="module")
def reader() -> PieceReader:
    return PieceReader(Tokenizer.from_str(SPEC), max_length=MAX_LENGTH)


def uncut(text: str) -> tuple[list[int], bool]:
    """Read the whole text, however long: what the reader must find, and whether pieces are left."""
    tokenizer = Tokenizer.from_str(SPEC)
    tokenizer.enable_truncation(MAX_LENGTH)
    encoding = tokenizer.encode(normalize_text(text))
    return encoding.ids, bool(encoding.overflowing)


# Words of up to 100 characters, with what a normaliser joins, drops or splits inside them.
WORDS = st.builds(
    lambda first, rest: first + rest,
    st.sampled_from(LETTERS + ".✓"),
    st.one_of(
        st.text("приветм" + "и\u0306\u0301е\u0308\x1c\x85\0.,\u00ad", max_size=30),
        st.integers(0, 99).map(lambda n: "а" * n),
    ),
)
TEXTS = st.builds(
    lambda words, spaces, times: "".join(
        w + spaces[i % len(spaces)] for i, w in enumerate(words * times)
    ),
    st.lists(WORDS, min_size=1, max_size=20),
    st.lists(st.one_of(st.sampled_from(SPACES), st.integers(1, 900).map(" ".__mul__)), min_size=1),
    st.sampled_from([1, 5, 40]),
)


@given(TEXTS)
def test_pieces_of_ordinary_texts_are_those_of_the_uncut_text(text: str) -> None:
    reader = PieceReader(Tokenizer.from_str(SPEC), max_length=MAX_LENGTH)
    ids, left = uncut(text)
    [pieces] = reader.read([text])
    assert (pieces.ids, pieces.second, pieces.cut) == (ids, len(ids), left)


# Smaller: what the library keeps of a cut pair grows with the product of its texts.
@settings(deadline=None)
@given(TEXTS.map(lambda t: t[:100]), TEXTS.map(lambda t: t[:100]))
def test_pieces_of_pairs_are_those_of_the_uncut_pair(first: str, second: str) -> None:
    reader = PieceReader(Tokenizer.from_str(SPEC), max_length=MAX_LENGTH)
    tokenizer = Tokenizer.from_str(SPEC)
    tokenizer.enable_truncation(MAX_LENGTH)
    expected = tokenizer.encode(normalize_text(first), normalize_text(second))
    [pieces] = reader.read([(first, second)])
    assert pieces.ids == expected.ids
    assert len(pieces.ids) - pieces.second == sum(expected.type_ids)
    assert pieces.cut == bool(expected.overflowing)


@pytest.mark.parametrize(
    ("first", "second", "room", "expected"),
    [
        (2, 3, 5, (2, 3)),
        (2, 9, 5, (2, 3)),
        (9, 2, 5, (3, 2)),
        (9, 9, 5, (2, 3)),
        (9, 8, 5, (3, 2)),
        (0, 9, 5, (0, 5)),
        (9, 9, 0, (0, 0)),
    ],
)
def test_shares_of_a_pair(first: int, second: int, room: int, expected: tuple[int, int]) -> None:
    assert shares(first, second, room=room) == expected


def test_pair_of_long_texts_is_no_product_of_them(reader: PieceReader) -> None:
    started = time.perf_counter()
    [pieces] = reader.read([("." * 5000, "." * 5000)])
    assert len(pieces.ids) == MAX_LENGTH
    assert time.perf_counter() - started < 1  # the library's own cut: 20 s


@pytest.mark.parametrize("words", [5, 6, 7, 40])
def test_longest_words_that_are_read(reader: PieceReader, words: int) -> None:
    # Each is one [UNK] of the greatest length that WordPiece looks at.
    text = " ".join(["щ" * 100] * words)
    assert reader.read([text])[0].ids == uncut(text)[0]


def test_white_space_is_no_reason_to_cut(reader: PieceReader) -> None:
    text = "при" + " " * 10 * LIMIT + "\n\t\u2003" * LIMIT + "мир"
    assert reader.split(text) == ["[CLS]", "при", "мир", "[SEP]"]
    assert len(reader.read([text])[0].ids) == 4


def test_documented_rule_for_pathological_texts(reader: PieceReader) -> None:
    # Over 100 characters without white space: one [UNK] each, so a text of them is cut early.
    text = ("щ" * LIMIT) + " мир"
    assert uncut(text)[0] != reader.read([text])[0].ids
    assert reader.split(text) == ["[CLS]", "[UNK]", "[SEP]"]
    # Characters that the tokenizer drops count, too.
    assert reader.split("\0" * LIMIT + "мир") == ["[CLS]", "[SEP]"]
    assert reader.split("\0" * (LIMIT - 3) + "мир") == ["[CLS]", "мир", "[SEP]"]


class Watching:
    """Stands in for a tokenizer, and notes how much it is given."""

    def __init__(self, seen: list[int]) -> None:
        self._seen = seen
        self._real = Tokenizer.from_str(SPEC)
        self.token_to_id = self._real.token_to_id

    def encode_batch_fast(self, texts: list[str], **arguments: Any) -> Any:
        self._seen.extend(map(len, texts))
        return self._real.encode_batch_fast(texts, **arguments)

    def encode(self, text: str, **arguments: Any) -> Any:
        self._seen.append(len(text))
        return self._real.encode(text, **arguments)


def test_beginning_of_a_long_ordinary_text_is_enough() -> None:
    seen: list[int] = []
    text = "при мир, " * 1000
    [pieces] = PieceReader(Watching(seen), max_length=MAX_LENGTH).read([text])
    assert pieces.ids == uncut(text)[0]
    assert max(seen) <= 16 * MAX_LENGTH


@pytest.mark.parametrize(
    "text",
    ["п" * 5_000_000, "при " * 1_250_000, " " * 5_000_000, "\0" * 5_000_000, ".," * 2_500_000,
     "при\n" + "п" * 5_000_000, "щ" * 101 + " " + "п " * 2_500_000],
    ids=["letters", "words", "spaces", "nul", "dots", "word and letters", "unknown and letters"],
)  # fmt: skip
def test_no_text_reaches_the_tokenizer_uncut(text: str) -> None:
    seen: list[int] = []
    reader = PieceReader(Watching(seen), max_length=MAX_LENGTH)
    started = time.perf_counter()
    assert reader.read([text])[0].ids == uncut(text[: 4 * LIMIT])[0]
    assert reader.read([(text, text)])[0].ids
    assert len(reader.split(text)) <= MAX_LENGTH
    assert reader.count([text])[0] <= LIMIT + 2
    assert max(seen) <= LIMIT
    assert time.perf_counter() - started < 5  # uncut: 9 s and more for each of the three


def test_beginning_ends_before_white_space(reader: PieceReader) -> None:
    # Its last word is of many pieces as a whole, and one [UNK] with the letter that is not known.
    for last in ("а" * 59 + "щ", "щ" + "а" * 59, "а" * 60):
        text = f"{last} " + "при " * 500
        assert reader.read([text])[0].ids == uncut(text)[0]


def test_count_is_taken_before_the_cut(reader: PieceReader) -> None:
    texts = ["", "при", "при мир", "мир " * 4, "мир " * 5, "мир " * 13]
    assert reader.count(texts) == [2, 3, 4, 6, 7, 15]
    assert [len(e.ids) for e in reader.read(texts)] == [2, 3, 4, 6, 6, 6]


@pytest.mark.parametrize(
    ("text", "longest", "expected"),
    [
        ("абв", 3, "абв"),
        ("а  б", 4, "а  б"),
        ("а   бвг", 4, "а бв"),
        ("  а  б  в", 5, "а б в"),
        ("абвгд", 3, "абв"),
        ("абв гд", 4, "абв"),
        ("     ", 3, ""),
    ],
)
def test_bounded_counts_runs_of_white_space_once(text: str, longest: int, expected: str) -> None:
    assert bounded(text, longest) == expected


@given(st.text(" \nа\u2003б", max_size=60), st.integers(1, 40))
def test_bounded_is_a_beginning_of_at_most_that_length(text: str, longest: int) -> None:
    result = bounded(text, longest)
    assert len(result) <= longest or len(text) <= longest
    assert " ".join(text.split()).startswith(" ".join(result.split()))
