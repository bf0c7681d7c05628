import json

import pytest

from rubert_lite.errors import InputError
from train.heads import class_weights
from train.labelled import Asked, Keys, Tagged, few, read_asked, read_labelled, read_tagged


@pytest.mark.parametrize(
    ("train", "dev", "names", "message"),
    [
        ([{"text": "а", "label": 1}], [{"text": "а", "label": 1}], {}, "at least two"),
        ([{"text": "а"}], [], {}, "no 'label'"),
        ([{"text": None, "label": 1}], [], {}, "'text' is a NoneType, expected a string"),
        ([{"text": "а", "label": None}], [], {}, "label None: expected a string or a whole"),
        ([{"text": "а", "label": 1.0}], [], {}, "label 1.0: expected a string or a whole"),
        ([{"text": "а", "label": [1]}], [], {}, r"label \[1\]: expected a string or a whole"),
        ([{"text": "а", "label": True}], [], {}, "label True: expected a string or a whole"),
        ([{"text": "а", "label": 1}, {"text": "б", "label": 2}], [], {}, "no records: expected"),
        (
            [{"text": "а", "label": 1}, {"text": "б", "label": 2}],
            [{"text": "в", "label": 3}],
            {"1": "x", "2": "y"},
            r"dev\.jsonl: label '3' is not in finetune.labels",
        ),
        ([{"text": "а", "label": 1}, {"text": "б", "label": 2}], [], {"1": "x"}, "label '2'"),
        (
            [{"text": "а", "label": 1}, {"text": "б", "label": 2}],
            [{"text": "в", "label": 3}],
            {},
            "label '3' does not occur",
        ),
    ],
)
def test_bad_labels_are_told(tmp_path, train, dev, names, message):
    for name, rows in (("train", train), ("dev", dev)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_labelled(tmp_path / "train.jsonl", tmp_path / "dev.jsonl", keys=Keys(), names=names)


def records(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("row", [{"tokens": "кот", "tags": "OOO"}, {"tokens": 5, "tags": 5}])
def test_tokens_are_a_list(tmp_path, row):
    path = records(tmp_path / "a.jsonl", row)
    with pytest.raises(InputError, match=r"a\.jsonl:1: tokens and tags: expected two lists"):
        read_tagged(path, path)


def test_entities_are_read_from_tags_and_from_places(tmp_path):
    tags = {"tokens": ["а", "бв", "г", "д"], "tags": ["I-X", "I-X", "B-X", "I-Y"]}
    places = {"text": "а бв", "entities": [{"start": 2, "end": 4, "label": "X"}]}
    path = records(tmp_path / "t.jsonl", tags, places)
    found = read_tagged(path, path)
    assert found.labels == ("O", "B-X", "I-X", "B-Y", "I-Y")
    assert found.train[0] == Tagged("а бв г д", ((0, 4, "X"), (5, 6, "X"), (7, 8, "Y")))
    assert found.train[1] == Tagged("а бв", ((2, 4, "X"),))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"tokens": ["а"], "tags": []}, "1 tokens and 0 tags"),
        ({"tokens": ["а"], "tags": ["X"]}, "tag 'X', expected O"),
        ({"tokens": ["а"]}, "no 'tags'"),
        ({"tokens": ["а"], "tags": [1]}, "tag 1, expected O"),
        ({"tokens": [""], "tags": ["B-X"]}, "token '' tagged B-X, expected a word"),
        ({"text": "а", "entities": [{"start": "0", "end": 1, "label": "X"}]}, "expected numbers"),
        ({"text": None, "entities": []}, "expected a string `text`"),
        ({"text": "а"}, "no 'entities'"),
        ({"text": "а", "entities": [{"start": 0}]}, "expected numbers start and end"),
        ({"text": "а", "entities": [{"start": 0, "end": 2, "label": "X"}]}, "X at 0..2: outside"),
        ({"text": "а", "entities": [{"start": 0, "end": 1, "label": ""}]}, "expected numbers"),
        ({"text": "а", "entities": []}, "no entities"),
    ],
)
def test_bad_entities_are_told(tmp_path, record, message):
    path = records(tmp_path / "t.jsonl", record)
    with pytest.raises(InputError, match=message):
        read_tagged(path, path)


def test_entities_are_needed_to_judge_by(tmp_path):
    has = records(tmp_path / "t.jsonl", {"tokens": ["а"], "tags": ["B-X"]})
    none = records(tmp_path / "d.jsonl", {"tokens": ["а"], "tags": ["O"]})
    with pytest.raises(InputError, match=r"d\.jsonl: no entities: expected some to judge by"):
        read_tagged(has, none)


def squad(path, *answers, context="дом и сад"):
    qas = [{"id": "1", "question": "что?", "answers": list(answers)}]
    data = {"data": [{"paragraphs": [{"context": context, "qas": qas}]}]}
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_questions_are_read_from_squads_format(tmp_path, caplog):
    good, bad = {"answer_start": 6, "text": "сад"}, {"answer_start": -3, "text": "сад"}
    path = squad(tmp_path / "s.json", good, bad, good)
    assert read_asked(path, path).train == [Asked("что?", "дом и сад", ((6, 9),))]
    assert "1 answers do not stand where they should" in caplog.text
    with pytest.raises(InputError, match="no questions with answers"):
        read_asked(squad(path, bad), path)
    endless = {"answer_start": float("inf"), "text": "сад"}
    for text in ("[]", squad(tmp_path / "e.json", endless).read_text()):
        path.write_text(text)
        with pytest.raises(InputError, match="not SQuAD's format"):
            read_asked(path, path)


def test_questions_without_an_answer_are_counted(tmp_path, caplog):
    path = squad(tmp_path / "s.json", {"answer_start": 6, "text": "сад"})
    data = json.loads(path.read_text())
    qas = data["data"][0]["paragraphs"][0]["qas"]
    qas += [{"id": "2", "question": "?", "answers": [], "is_impossible": True}] * 3
    path.write_text(json.dumps(data), encoding="utf-8")
    assert len(read_asked(path, path).train) == 1
    assert "3 questions without an answer are left out" in caplog.text


def test_few_are_drawn_from_everywhere_and_the_same_each_time(tmp_path):
    rows = [{"text": str(i), "label": int(i >= 990)} for i in range(1000)]
    path = records(tmp_path / "all.jsonl", *rows)
    whole = read_labelled(path, path, keys=Keys())
    kept = few(whole, 100)
    places = [int(e.text) for e in kept.train]
    assert len(places) == 100 and places == sorted(set(places))
    assert min(places) < 100 and max(places) > 900
    assert few(whole, 100) == kept
    assert kept.dev == whole.dev and kept.labels == whole.labels
    for all_of_them in (0, 1000, 2000):
        assert few(whole, all_of_them) is whole


def test_a_label_that_the_few_lack_weighs_nothing_strange(tmp_path):
    rows = [{"text": str(i), "label": int(i == 500)} for i in range(1000)]
    path = records(tmp_path / "all.jsonl", *rows)
    kept = few(read_labelled(path, path, keys=Keys()), 10)
    assert {e.label for e in kept.train} == {0}
    assert class_weights(kept).tolist() == [0.5, 5.0]
