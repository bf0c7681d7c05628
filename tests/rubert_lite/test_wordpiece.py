"""tokenizer.json: what is accepted, and what pruning and mapping keep."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rubert_lite.errors import InputError, PackageError
from rubert_lite.wordpiece import (
    SPECIAL_PIECES,
    bert_tokenizer_spec,
    check_tokenizer,
    map_tokenizer,
    pieces_by_id,
    prune_tokenizer,
    strips_accents,
)

PIECES = [*SPECIAL_PIECES, "п", "##р", "##и", "##в", "##е", "##т", "при", "##вет", "привет", "мир"]


def split(spec: dict[str, Any], text: str) -> str:
    return "|".join(Tokenizer.from_str(json.dumps(spec)).encode(text).tokens)


def ids(spec: dict[str, Any], text: str) -> list[int]:
    found: list[int] = Tokenizer.from_str(json.dumps(spec)).encode(text).ids
    return found


def test_spec_splits_greedily_between_specials() -> None:
    spec = bert_tokenizer_spec(PIECES)
    assert split(spec, "привет мир") == "[CLS]|привет|мир|[SEP]"
    assert split(spec, "приве дом") == "[CLS]|при|##в|##е|[UNK]|[SEP]"


def test_pair_has_token_types() -> None:
    tokenizer = Tokenizer.from_str(json.dumps(bert_tokenizer_spec(PIECES)))
    encoding = tokenizer.encode("мир", "привет")
    assert encoding.tokens == ["[CLS]", "мир", "[SEP]", "привет", "[SEP]"]
    assert encoding.type_ids == [0, 0, 0, 1, 1]


def test_letters_stay_apart_and_case_follows_the_flag() -> None:
    pieces = [*SPECIAL_PIECES, "йод", "иод", "ёлка", "елка"]
    assert split(bert_tokenizer_spec(pieces), "йод ёлка и\u0306од") == "[CLS]|йод|ёлка|йод|[SEP]"
    assert split(bert_tokenizer_spec(pieces), "ЙОД") == "[CLS]|[UNK]|[SEP]"
    assert split(bert_tokenizer_spec(pieces, lowercase=True), "ЙОД ЁЛКА") == (
        "[CLS]|йод|ёлка|[SEP]"
    )


def test_vocabulary_with_faults_is_refused() -> None:
    with pytest.raises(InputError, match=r"\[MASK\] are missing"):
        bert_tokenizer_spec(SPECIAL_PIECES[:-1])
    with pytest.raises(InputError, match="'мир' stands twice"):
        bert_tokenizer_spec([*PIECES, "мир"])


def test_pruned_tokenizer_keeps_pieces_whose_parts_are_kept() -> None:
    spec = bert_tokenizer_spec(PIECES)
    kept = [i for i, piece in enumerate(PIECES) if piece != "привет"][::-1]
    pruned = prune_tokenizer(spec, kept)
    assert split(pruned, "мир") == "[CLS]|мир|[SEP]"
    assert split(pruned, "привет") == "[CLS]|при|##вет|[SEP]"  # other pieces, never [UNK]
    assert [kept[i] for i in ids(pruned, "мир при")] == ids(spec, "мир при")


@given(st.sets(st.integers(0, len(PIECES) - 1)), st.text("привет м", max_size=30), st.randoms())
def test_pruning_law(extra: set[int], text: str, random: Any) -> None:
    spec = bert_tokenizer_spec(PIECES)
    kept = sorted({*range(len(SPECIAL_PIECES)), *extra})
    random.shuffle(kept)
    pruned = prune_tokenizer(spec, kept)
    before = ids(spec, text)
    if set(before) <= set(kept):
        assert [kept[i] for i in ids(pruned, text)] == before
    assert max(ids(pruned, text)) < len(kept)
    check_tokenizer(pruned, vocab_size=len(kept))


LETTERS = "приветм"
PARTS = ["при", "##вет", "##ве", "привет", "мир", "##мир", "ри", "##тт"]
SPELLED = [*SPECIAL_PIECES, *LETTERS, *(f"##{letter}" for letter in LETTERS), *PARTS]


@given(st.sets(st.sampled_from(PARTS)), st.text(LETTERS + " ", max_size=60))
def test_no_text_becomes_unknown_if_its_letters_are_kept(parts: set[str], text: str) -> None:
    kept = [i for i, piece in enumerate(SPELLED) if piece not in PARTS or piece in parts]
    found = split(prune_tokenizer(bert_tokenizer_spec(SPELLED), kept), text)
    pieces = found.split("|")[1:-1]
    assert "[UNK]" not in pieces
    assert "".join(p.removeprefix("##") for p in pieces) == text.replace(" ", "")
    assert not {*pieces} & ({*PARTS} - parts)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ([0, 1, 2, 3, 4, 4], "stands twice"),
        ([0, 1, 2, 3, 4, 99], "99 is outside"),
        ([0, 1, 2, 3, -1], "-1 is outside"),
        ([0, 1, 2, 3], r"\[MASK\] must be kept"),
    ],
)
def test_wrong_kept_ids_are_refused(kept: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prune_tokenizer(bert_tokenizer_spec(PIECES), kept)


def test_mapped_pieces_share_rows_and_segmentation_stays() -> None:
    spec = bert_tokenizer_spec(PIECES)
    new = [*range(len(SPECIAL_PIECES)), *([5] * (len(PIECES) - len(SPECIAL_PIECES)))]
    mapped = map_tokenizer(spec, new)
    assert ids(mapped, "привет мир") == [2, 5, 5, 3]
    check_tokenizer(mapped, vocab_size=6)
    with pytest.raises(InputError, match=f"3 entries, expected {len(PIECES)}"):
        map_tokenizer(spec, [0, 1, 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"type": "BPE", "vocab": {}}}, "model type 'BPE', expected 'WordPiece'"),
        ({"model": None}, "model type None"),
        ({"model": {"type": "WordPiece", "vocab": {}}}, "no vocabulary"),
        ({"model": {"type": "WordPiece", "vocab": {"а": "1"}}}, "id of 'а'"),
        ({"model": {"type": "WordPiece", "vocab": {"а": 1}}}, "special pieces"),
        ({"normalizer": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}}}, "'Replace'"),
        ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}}}, "'Split'"),
        (
            {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Replace"}]}},
            "normalizer of type 'Replace'",
        ),
        ({"post_processor": {"type": "ByteLevel"}}, "post_processor of type 'ByteLevel'"),
        (
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "normalizers": [{"type": "BertPreTokenizer"}],  # not what is read
                    "pretokenizers": [{"type": "Split", "pattern": {"Regex": "(a+)+$"}}],
                }
            },
            "pre_tokenizer of type 'Split'",
        ),
    ],
)
def test_other_tokenizers_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PackageError, match=message):
        check_tokenizer(bert_tokenizer_spec(PIECES) | change)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_input_chars_per_word", 10**9),  # a word of 10,000 letters would take a minute
        ("max_input_chars_per_word", 0),
        ("max_input_chars_per_word", True),
        ("unk_token", "<nope>"),
        ("continuing_subword_prefix", ""),
    ],
)
def test_words_are_split_as_bert_does(key: str, value: object) -> None:
    spec = bert_tokenizer_spec(PIECES)
    spec["model"] |= {key: value}
    with pytest.raises(PackageError, match=f"{key} {value!r}, expected"):
        check_tokenizer(spec)


def test_stripped_accents_are_known() -> None:
    assert not strips_accents(bert_tokenizer_spec(PIECES, lowercase=True))
    bert: dict[str, Any] = {"type": "BertNormalizer", "lowercase": True, "strip_accents": None}
    assert strips_accents({"normalizer": bert})
    inner = {"type": "Sequence", "normalizers": [{"type": "NFC"}, bert | {"lowercase": False}]}
    assert not strips_accents({"normalizer": inner})
    assert not strips_accents({"normalizer": None})


def test_ids_outside_the_model_are_refused() -> None:
    spec = bert_tokenizer_spec(PIECES)
    check_tokenizer(spec, vocab_size=len(PIECES))
    with pytest.raises(PackageError, match=f"highest id {len(PIECES) - 1}"):
        check_tokenizer(spec, vocab_size=len(PIECES) - 1)


def test_pieces_by_id_wants_each_id_once() -> None:
    assert pieces_by_id(bert_tokenizer_spec(PIECES)) == PIECES
    for vocab in ({"а": 0, "б": 0}, {"а": 0, "б": 2}, {"а": -1, "б": 0}):
        with pytest.raises(PackageError, match=r"expected each of 0\.\.1 once"):
            pieces_by_id({"model": {"vocab": vocab}})
