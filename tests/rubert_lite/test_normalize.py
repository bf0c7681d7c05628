"""The text contract."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubert_lite.normalize import normalize_text, replace_surrogates

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
