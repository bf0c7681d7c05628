"""Texts without labels, which a tuned teacher labels for a student."""

import json

import pytest

from rubert_lite.errors import InputError
from train.config import LineConfig
from train.finetune import Tuning, finetune
from train.folders import Line
from train.heads import Classes, Entities
from train.labelled import Example, Keys, Labelled, Tagged, read_unlabelled
from train.line_tasks import finetune_head
from train.provenance import read_training

from .toy_tuning import write_tiny

OPTIONS = {"epochs": 80, "learning_rate": 0.05, "batch_size": 4}
WHOLE = OPTIONS | {"learning_rate": 0.01, "freeze_encoder": False}
TOLD = [("привет дом", "a"), ("мир дом", "b")]
FREE = [("привет мир дом", (7, 10, "X")), ("мир дом", (0, 3, "X"))]


@pytest.fixture
def checkpoint(tmp_path):
    return write_tiny(tmp_path)


def write_lines(path, records):
    path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in records), "utf-8")
    return str(path)


def stage(folder, checkpoint, **settings):
    corpus = {"sources": [{"name": "x", "files": ["x"], "license": "CC0"}]}
    task = {"name": "t", "source": str(checkpoint), "license": "CC BY", **settings}
    config = {"run": str(folder / "run"), "corpus": corpus, "finetune": task}
    line = Line(LineConfig.model_validate(config))
    finetune_head(line)
    return read_training(line.folder("06-t"))


def test_classes_are_learnt_from_texts_that_the_teacher_labels(checkpoint, tmp_path):
    """The labelled texts tell the student nothing of those that it is judged by."""
    known = [Example(text, None, "ab".index(label)) for text, label in TOLD]
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    kind = Classes(Labelled(known * 4, known, ("a", "b")))
    assert finetune(checkpoint, kind, tuning=Tuning(**OPTIONS), out=teacher)["accuracy"] == 1
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(text for text, _ in TOLD * 6), "utf-8")
    files = {
        "train": write_lines(tmp_path / "train.jsonl", [
            {"text": "дом", "label": "b"}, {"text": "сад", "label": "a"},
        ]),
        "dev": write_lines(tmp_path / "dev.jsonl", [{"text": t, "label": n} for t, n in TOLD]),
    }  # fmt: skip
    more = {"unlabelled": str(texts), "unlabelled_license": "CC0"}
    soft = {"soft": str(teacher)}
    told = stage(tmp_path / "with", checkpoint, **files, **OPTIONS, **soft, **more)
    assert told["metrics"]["t"]["accuracy"] == 1
    assert told["corpora"] == [
        {"name": "t", "license": "CC BY", "texts": 2, "use": "labels"},
        {"name": "t: texts.txt", "license": "CC0", "texts": 12, "use": "a teacher's labels"},
    ]
    without = stage(tmp_path / "without", checkpoint, **files, **OPTIONS, **soft)
    assert without["metrics"]["t"]["accuracy"] < 1
    # A comparison's row of gold labels: the same task, no teacher
    gold = stage(tmp_path / "gold", checkpoint, **files, **OPTIONS, **more)
    assert [c["texts"] for c in gold["corpora"]] == [2]


def test_entities_are_learnt_from_texts_that_the_teacher_labels(checkpoint, tmp_path):
    known = [Tagged(text, (span,)) for text, span in FREE]
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    kind = Entities(Labelled(known * 2, known, ("O", "B-X", "I-X")))
    assert finetune(checkpoint, kind, tuning=Tuning(**WHOLE), out=teacher)["f1"] == 1
    rows = [
        {"text": t, "entities": [{"start": a, "end": b, "label": kind}]} for t, (a, b, kind) in FREE
    ]
    wrong = {"text": "сад", "entities": [{"start": 0, "end": 3, "label": "X"}]}
    told = stage(
        tmp_path / "with", checkpoint, task="token-classification", soft=str(teacher), **WHOLE,
        train=write_lines(tmp_path / "train.jsonl", [wrong]),
        dev=write_lines(tmp_path / "dev.jsonl", rows),
        unlabelled=write_lines(tmp_path / "more.jsonl", [{"text": t} for t, _ in FREE * 3]),
        unlabelled_license="CC0",
    )  # fmt: skip
    assert told["metrics"]["t"]["f1"] == 1


def test_texts_and_pairs_are_read_and_broken_ones_are_told(tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    write_lines(pairs, [{"a": "раз", "b": "два"}, {"a": " ", "b": "три"}])
    assert read_unlabelled(pairs, Keys("a", "b")) == [("раз", "два")]
    with pytest.raises(InputError, match=r"pairs\.jsonl.*no 'c'"):
        read_unlabelled(pairs, Keys("a", "c"))
    write_lines(pairs, [{"a": "раз", "b": 2}])
    with pytest.raises(InputError, match="expected strings 'a' and 'b'"):
        read_unlabelled(pairs, Keys("a", "b"))
    with pytest.raises(InputError, match=r"pairs\.jsonl.*text"):
        read_unlabelled(pairs, Keys())
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n", "utf-8")
    with pytest.raises(InputError, match="no texts: expected some for the teacher"):
        read_unlabelled(empty, Keys())
    with pytest.raises(InputError, match="no such file"):
        read_unlabelled(tmp_path / "none.txt", Keys())
