"""The text contract."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubert_lite.normalize import (
    _MAYBE_MARKS,
    _is_mark,
    normalize_text,
    normalize_with_places,
    replace_surrogates,
)

ANY_TEXT = st.text(
    st.one_of(st.characters(), st.sampled_from("\ud800\udc00\udfff\0йие\u0306\u0301\u0308"))
)


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("и\u0306од", "йод"),
        ("е\u0308лка", "ёлка"),
        ("Ёлка и йод", "Ёлка и йод"),
        ("за\u0301мок, ё\u0301лка", "замок, ёлка"),
        ("е\u0301\u0308\u0301", "ё"),
        ("cafe\u0301, о\u0300", "caf\xe9, о\u0300"),
        ("", ""),
        ("a\0b\tc\n", "a\0b\tc\n"),
        ("ДОМ", "ДОМ"),
    ],
    ids=[
        "й",
        "ё",
        "kept",
        "stress",
        "stress inside ё",
        "other accents",
        "empty",
        "controls",
        "case",
    ],
)
def test_text_contract(given_text: str, expected: str) -> None:
    assert normalize_text(given_text) == expected


def test_each_lone_surrogate_becomes_one_replacement_character() -> None:
    assert replace_surrogates("а\ud800\udfff\udc00б") == "а\ufffd\ufffd\ufffdб"
    assert normalize_text("\ud83d\u0438\u0306") == "\ufffdй"


def test_a_run_of_marks_is_bounded() -> None:
    """NFC puts marks into order in a time that grows with their number squared."""
    marks = "\u0315\u0316" * 100_000
    began = time.perf_counter()
    assert normalize_text(f"дом{marks}а{marks}") == normalize_text(f"дом{marks[:30]}а{marks[:30]}")
    text, places = normalize_with_places(f"а {marks}дом")
    assert len(text) == len(places) == 2 + 30 + 3
    assert places[-1] == (len(marks) + 4, len(marks) + 5)
    assert time.perf_counter() - began < 5
    kept = "а" + "\u0316" * 30 + "\u200d🙂" * 40
    assert normalize_text(kept) == kept


def test_every_combining_mark_may_be_bounded() -> None:
    """What the quick look for runs leaves out has no combining class."""
    whole = "".join(filter(_is_mark, map(chr, range(0x110000))))
    assert len(whole) > 800 and _MAYBE_MARKS.fullmatch(whole)
    assert set(filter(unicodedata.combining, map(chr, range(0x110000)))) < set(whole)


@pytest.mark.parametrize("mark", ["\u0f73", "\u0f75", "\u0f81"])
def test_marks_that_come_apart_into_marks_are_bounded(mark: str) -> None:
    """They have no combining class themselves, and NFC never leaves them whole."""
    began = time.perf_counter()
    assert normalize_text(f"а{mark * 50_000}б") == normalize_text(f"а{mark * 30}б")
    assert time.perf_counter() - began < 2
    assert normalize_with_places(f"а{mark}б")[1][-1] == (2, 3)


def test_text_without_surrogates_is_the_same_object() -> None:
    for text in ("plain", "Привет 🙂"):
        assert replace_surrogates(text) is text
        assert normalize_text(text) is text


@given(ANY_TEXT)
def test_result_is_utf8_in_nfc_and_stays(text: str) -> None:
    result = normalize_text(text)
    result.encode("utf-8")
    assert unicodedata.is_normalized("NFC", result)
    assert normalize_text(result) == result


def test_places_lead_back_to_the_text_that_was_given() -> None:
    text = "за\u0301мок и\u0306од \ud800 дом"
    whole, places = normalize_with_places(text)
    assert whole == "замок йод \ufffd дом"
    assert [text[a:b] for a, b in places] == [
        "з", "а\u0301", "м", "о", "к", " ", "и\u0306", "о", "д", " ", "\ud800", " ", "д", "о", "м",
    ]  # fmt: skip


def test_letters_that_compose_without_marks_share_their_word() -> None:
    text = "да \u1100\u1161 да"  # two letters of Hangul, one syllable
    whole, places = normalize_with_places(text)
    assert whole == "да \uac00 да"
    assert places[3] == (3, 5) and places[5] == (6, 7)


def test_their_neighbours_keep_their_own_places() -> None:
    text = "Анна,\u1112\u1161\u11ab."
    whole, places = normalize_with_places(text)
    assert whole == "Анна,\ud55c."
    assert [text[a:b] for a, b in places] == [*"Анна,", "\u1112\u1161\u11ab", "."]


@given(st.text(st.sampled_from("аб,\u1100\u1161\u11a8\u09c7\u09be\u0308\u0f73")))
def test_places_of_what_composes_in_any_way(text: str) -> None:
    whole, places = normalize_with_places(text)
    assert whole == normalize_text(text) and len(places) == len(whole)
    for letter, (start, end) in zip(whole, places, strict=True):
        assert letter in normalize_text(text[start:end])


@given(ANY_TEXT)
def test_places_are_in_order_and_cover_what_they_became(text: str) -> None:
    whole, places = normalize_with_places(text)
    assert whole == normalize_text(text) and len(places) == len(whole)
    assert all(0 <= a < b <= len(text) for a, b in places)
    assert all(p <= q for p, q in zip(places[:-1], places[1:], strict=True))
