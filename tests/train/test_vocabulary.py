import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubert_lite.errors import ConfigError, InputError, PackageError
from rubert_lite.wordpiece import SPECIAL_PIECES, bert_tokenizer_spec, check_tokenizer, pieces_by_id
from tests.train.conftest import ALPHABET, wordpiece
from tests.train.toy_line import CORPUS, write_words
from train.alignment import notation
from train.config import load_config
from train.folders import Line
from train.line import run_line
from train.tokenizer import open_tokenizer, read_tokenizer
from train.vocabulary import (
    choose_kept,
    count_pieces,
    extend,
    join,
    lowercased,
    map_dropped,
    measure_coverage,
    prune,
    train_wordpiece,
)

SPEC = wordpiece("привет", "мир", "дома", "дом", "##ами", "##ми", "редкое")
TEXTS = ["привет, мир"] * 5 + ["домами дом дома дом"] * 2 + [ALPHABET] * 2


@pytest.fixture(scope="module")
def counted():
    return count_pieces(SPEC, TEXTS)


def test_pieces_and_characters_are_counted(counted):
    counts, chars = counted
    vocab = SPEC["model"]["vocab"]
    assert counts[vocab["привет"]] == 5 and counts[vocab["дом"]] == 4
    assert counts[vocab["дома"]] == 4 and counts[vocab["##ми"]] == 2
    assert chars["п"] == 7


def test_pruning_keeps_the_alphabet_and_the_most_frequent(counted):
    counts, _ = counted
    pieces = pieces_by_id(SPEC)
    kept = {pieces[i] for i in choose_kept(SPEC, counts, len(pieces) - 3)}
    assert {"привет", "мир", "дом"} <= kept and "редкое" not in kept
    assert set(ALPHABET) <= kept and {"##" + c for c in ALPHABET} <= kept


@pytest.mark.parametrize(("size", "message"), [(20, "below the"), (10_000, "above the teacher's")])
def test_impossible_sizes_are_refused(counted, size, message):
    with pytest.raises(InputError, match=message):
        choose_kept(SPEC, counted[0], size)


WORDS = st.text(alphabet=ALPHABET + "  ", max_size=50)
PRUNED = prune(SPEC, count_pieces(SPEC, TEXTS)[0], len(pieces_by_id(SPEC)) - 3)


@given(WORDS)
def test_pruned_tokenizer_splits_as_the_teacher_or_finer_but_never_to_unknown(text):
    spec, kept = PRUNED
    teacher, student = open_tokenizer(SPEC), open_tokenizer(spec)
    theirs, ours = teacher.encode(text), student.encode(text)
    if set(theirs.ids) <= set(kept):
        assert ours.tokens == theirs.tokens
        assert [kept[i] for i in ours.ids] == theirs.ids
    assert "[UNK]" not in ours.tokens


def test_trained_vocabulary_has_every_character_in_both_forms():
    spec = train_wordpiece(
        bert_tokenizer_spec(SPECIAL_PIECES), TEXTS * 20, count_pieces(SPEC, TEXTS)[1], 200
    )
    check_tokenizer(spec, vocab_size=200)
    pieces = pieces_by_id(spec)
    assert len(pieces) <= 200 and pieces[:5] == list(SPECIAL_PIECES)
    assert set(ALPHABET) <= set(pieces) and {"##" + c for c in ALPHABET} <= set(pieces)
    assert notation(open_tokenizer(spec), "привет, мир") == "привет|,|мир"
    with pytest.raises(InputError, match="below the"):
        train_wordpiece(bert_tokenizer_spec(SPECIAL_PIECES), TEXTS, {c: 9 for c in ALPHABET}, 60)


def test_joined_pieces_keep_their_ids_and_new_ones_follow():
    more = bert_tokenizer_spec([*SPECIAL_PIECES, "s", "##s", "snow", "чай"])
    joined = pieces_by_id(join(SPEC, more))
    known = pieces_by_id(SPEC)
    assert joined[: len(known)] == known
    assert joined[len(known) :] == [p for p in ("s", "##s", "snow", "чай") if p not in known]


def test_added_pieces_are_the_most_frequent_that_match():
    known = pieces_by_id(SPEC)
    whole = join(SPEC, bert_tokenizer_spec([*SPECIAL_PIECES, "s", "snow", "##ow", "чай", "rare"]))
    seen = dict.fromkeys(("чай", "s", "snow", "##ow"), 9) | {"##ow": 3, "привет": 50}
    counts = np.array([seen.get(piece, 0) for piece in pieces_by_id(whole)])
    found = extend(SPEC, whole, counts, len(known) + 2, matching="[a-z]")
    assert pieces_by_id(found) == [*known, "s", "snow"]
    text = "снег домами, мир"
    assert open_tokenizer(found).encode(text).ids == open_tokenizer(SPEC).encode(text).ids
    with pytest.raises(InputError, match="other side 3 are new and match"):  # rare stands nowhere
        extend(SPEC, whole, counts, len(known) + 4, matching="[a-z]")
    with pytest.raises(InputError, match=f"the tokenizer has {len(known)} pieces"):
        extend(SPEC, whole, counts, len(known))


def test_a_lower_case_vocabulary_drops_case_and_keeps_its_accents(counted):
    spec = train_wordpiece(lowercased(SPEC), ["Ёлка Мир"] * 9, {c: 9 for c in "ЁёлкаМмир"}, 40)
    check_tokenizer(spec)
    assert not any(p != p.lower() for p in pieces_by_id(spec)[5:])
    tokenizer = open_tokenizer(spec)
    assert notation(tokenizer, "ЁЛКА") == notation(tokenizer, "ёлка") == "ёлка"
    assert notation(tokenizer, "елка") != "ёлка"


def test_mapped_pieces_use_the_row_of_their_nearest_kept_piece(counted):
    """GLMD: argmax over kept k of <E[o], E[k]>; the segmentation stays the teacher's."""
    pieces = pieces_by_id(SPEC)
    vocab = SPEC["model"]["vocab"]
    rows = np.random.default_rng(0).normal(size=(len(pieces), 8)).astype(np.float32)
    rows[vocab["редкое"]] = 3 * rows[vocab["мир"]]
    rows[vocab["мир"]] *= 10  # the largest product, whatever the other rows are
    spec, kept = map_dropped(SPEC, counted[0], len(pieces) - 3, rows)
    ids = spec["model"]["vocab"]
    assert ids["редкое"] == ids["мир"] != ids["дом"]
    assert set(ids.values()) == set(range(len(kept)))
    text = "редкое дома"
    assert open_tokenizer(spec).encode(text).ids[1] == ids["мир"]
    assert len(open_tokenizer(spec).encode(text).ids) == len(open_tokenizer(SPEC).encode(text).ids)


def test_no_piece_is_mapped_to_a_special_one(counted):
    pieces = pieces_by_id(SPEC)
    rows = np.full((len(pieces) + 6, 8), -1.0, dtype=np.float32)  # padded to a round number
    rows[SPEC["model"]["vocab"]["редкое"]] = 1.0
    for name in SPECIAL_PIECES:
        rows[SPEC["model"]["vocab"][name]] = 0.0  # beats every negative product
    spec, kept = map_dropped(SPEC, counted[0], len(pieces) - 3, rows)
    ids = spec["model"]["vocab"]
    special = {ids[name] for name in SPECIAL_PIECES}
    assert len(special) == 5 and ids["редкое"] not in special
    with pytest.raises(InputError, match="do they belong together"):
        map_dropped(SPEC, counted[0], len(pieces) - 3, rows[:-10])


def test_coverage_of_a_known_case():
    spec = wordpiece("при", "##вет")
    found = measure_coverage(SPEC, spec, ["привет мир"])
    # teacher: привет|мир; student: при|##вет|м|##и|##р
    assert found.pieces_per_word == 2.5 and found.unknown_share == 0
    assert found.chars_per_piece == 2.0 and found.matched_share == 0
    assert found.pieces_per_1000_chars == 500
    assert measure_coverage(SPEC, SPEC, TEXTS).matched_share == 1


def test_tokenizers_are_read_from_either_file(tmp_path):
    pieces = pieces_by_id(SPEC)
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    assert read_tokenizer(str(tmp_path))["model"]["vocab"] == SPEC["model"]["vocab"]
    for settings, read in (
        ({"do_lower_case": True}, ["привет", "е", "##и"]),  # BERT's rule
        ({"do_lower_case": True, "strip_accents": False}, ["привет", "ё", "##й"]),
    ):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        lower = open_tokenizer(read_tokenizer(str(tmp_path)))
        assert lower.encode("ПРИВЕТ ЁЙ").tokens[1:-1] == read
    (tmp_path / "tokenizer.json").write_text(json.dumps(SPEC, ensure_ascii=False))
    assert read_tokenizer(str(tmp_path))["normalizer"] == SPEC["normalizer"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(SPEC | {"model": {"type": "BPE"}}))
    with pytest.raises(PackageError, match="'BPE', expected 'WordPiece'"):
        read_tokenizer(str(tmp_path))


def test_a_folder_without_tokenizer_is_told(tmp_path):
    with pytest.raises(InputError, match="no tokenizer.json or vocab.txt"):
        read_tokenizer(str(tmp_path))


LINE = (
    'run = "run"\n'
    + CORPUS
    + """
[vocabulary]
method = "train"
size = 140
min_char_count = 1
pairs = 1.0
[distil]
alignment = "none"
[sentence]
teacher = "english"
prefixes = []
exclude = ["dev.txt"]
[[sentence.sources]]
name = "pairs"
files = ["pairs.tsv"]
license = "CC0"
teacher_field = "en"
student_field = "ru"
"""
)


def test_the_teachers_side_of_pairs_gives_pieces_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_words(tmp_path)
    rows = ["en\tru", *(f"the snow of {n}\tснег {n}" for n in "abcdefgh"), "xylophone\tксилофон"]
    (tmp_path / "pairs.tsv").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "dev.txt").write_text("xylophone\n", encoding="utf-8")
    (tmp_path / "line.toml").write_text(LINE, encoding="utf-8")
    path, stages = tmp_path / "line.toml", ["corpus", "vocabulary"]

    def vocabulary(*changes: str) -> set[str]:
        line = Line(load_config(path, changes))
        run_line(line, stages)
        text = (line.folder("02-vocabulary") / "tokenizer.json").read_text(encoding="utf-8")
        return set(json.loads(text)["model"]["vocab"])

    both, one = vocabulary(), vocabulary("vocabulary.pairs=0", "run=one")
    assert {"snow", "the"} <= both and not {"snow", "the", "s"} & one
    assert "y" not in both  # held out of the pairs: no text of the vocabulary either
    assert {"снег", "чай"} <= both & one
    join_one = ["vocabulary.method=join", "vocabulary.tokenizer=one/02-vocabulary"]
    joined = vocabulary(*join_one, "vocabulary.size=75", "run=joined")
    assert {"snow", "the", "снег", "чай"} <= joined and len(joined) == 75
    add_one = ["vocabulary.method=extend", join_one[1], f"vocabulary.size={len(one) + 3}"]
    added = vocabulary(*add_one, "vocabulary.new_matching=[a-z]{2}", "run=added")
    assert added == one | {"snow", "the", "of"}
    for method in ("join", "extend"):
        with pytest.raises(ConfigError, match="needs vocabulary.pairs"):
            load_config(path, [f"vocabulary.method={method}", "vocabulary.pairs=0"])
    with pytest.raises(ConfigError, match="new_matching chooses"):
        load_config(path, ["vocabulary.new_matching=[a-z]"])
    # What is drawn of the pairs is part of what the stage follows from.
    with pytest.raises(ConfigError, match="settings read"):
        vocabulary("sentence.max_chars=400")
    (tmp_path / "dev.txt").write_text("the snow of a\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="sentence.exclude"):
        vocabulary()
    with pytest.raises(ConfigError, match="there is no choice"):
        load_config(path, ["vocabulary.method=full"])
    text = LINE[: LINE.index("[sentence]")]
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"pairs of \[sentence\]"):
        load_config(path)
