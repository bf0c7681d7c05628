import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from export.pack import export
from export.unpack import unpack
from rubert_lite import load
from rubert_lite.errors import ConfigError, InputError
from tests.train.conftest import wordpiece
from train.checkpoint import read_metrics, write_checkpoint
from train.finetune import Tuning, finetune
from train.heads import Answers, Classes, Entities, class_weights, word_labels
from train.labelled import (
    Asked,
    Example,
    Labelled,
    Tagged,
)
from train.student import Shape, build, load_masked_lm
from train.tuned import open_reader

PIECES = ("привет", "мир", "дом", "сад")


@pytest.fixture
def checkpoint(tmp_path):
    spec = wordpiece(*PIECES)
    folder = tmp_path / "source"
    folder.mkdir()
    text = json.dumps(spec, ensure_ascii=False)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    (folder / "vocabulary.json").write_text("{}", encoding="utf-8")
    torch.manual_seed(0)
    shape = Shape(
        vocab_size=len(spec["model"]["vocab"]),
        layers=1,
        hidden_size=16,
        heads=2,
        ffn_size=32,
        max_length=32,
        dropout=0.0,
    )
    out = tmp_path / "checkpoint"
    out.mkdir()
    write_checkpoint(out, build(shape), folder, provenance={"teacher": "none"})
    return out


def labelled(*counts: int) -> Classes:
    words = [Example(f"{PIECES[k]} дом", None, k) for k, n in enumerate(counts) for _ in range(n)]
    return Classes(Labelled(words, words, tuple("abcd"[: len(counts)])))


def run(checkpoint, kind, out, soft=None, **tuning):
    out.mkdir()
    return finetune(checkpoint, kind, tuning=Tuning(**tuning), out=out, soft=soft)


def test_a_head_learns_on_a_frozen_encoder(checkpoint, tmp_path):
    out = tmp_path / "out"
    scores = run(checkpoint, labelled(12, 12), out, epochs=30, learning_rate=0.05, batch_size=4)
    assert scores == {"accuracy": 1.0, "macro_f1": 1.0, "weighted_f1": 1.0, "mcc": 1.0}
    config = json.loads((out / "config.json").read_text())
    assert config["id2label"] == {"0": "a", "1": "b"}
    assert config["finetuning_task"] == "classification"
    head = load_file(out / "head.safetensors")
    assert head["weight"].shape == (2, 16) and head["bias"].shape == (2,)
    before, after = (load_masked_lm(p).state_dict() for p in (checkpoint, out))
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_an_encoder_can_learn_along(checkpoint, tmp_path):
    out = tmp_path / "out"
    run(checkpoint, labelled(8, 8), out, freeze_encoder=False, epochs=2, learning_rate=0.01)
    before, after = (load_masked_lm(p).state_dict() for p in (checkpoint, out))
    assert any(not torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize("frozen", [True, False])
def test_axes_stay_with_the_vectors_that_they_sort(checkpoint, tmp_path, frozen):
    (checkpoint / "axes.safetensors").write_bytes(b"any")
    run(checkpoint, labelled(8, 8), tmp_path / "out", freeze_encoder=frozen, epochs=1)
    assert (tmp_path / "out" / "axes.safetensors").exists() == frozen


def test_what_came_out_of_a_package_can_be_tuned(checkpoint, tmp_path):
    package = export(checkpoint, tmp_path / "package", variants=("fp32",))
    (tmp_path / "unpacked").mkdir()
    unpack(package, tmp_path / "unpacked")
    kind, told = labelled(12, 12), {"epochs": 30, "learning_rate": 0.05, "batch_size": 4}
    scores = run(tmp_path / "unpacked", kind, tmp_path / "out", **told)
    assert scores["accuracy"] == 1.0
    tuned = export(tmp_path / "out", tmp_path / "tuned", variants=("fp32",))
    assert load(tuned.path).classify(["привет дом"])[0].label == "a"
    before, after = load(package.path).encode(["мир"]), load(tuned.path).encode(["мир"])
    assert np.abs(before - after).max() < 1e-5  # the encoder was frozen


def test_balanced_classes_weigh_the_same_in_sum():
    weights = class_weights(labelled(90, 9, 1).data)
    assert weights.tolist() == pytest.approx([100 / 270, 100 / 27, 100 / 3])
    assert float(weights @ np.array([90.0, 9.0, 1.0])) == pytest.approx(100)


def test_balance_finds_a_rare_class(checkpoint, tmp_path):
    """Of two texts one is always common, the other is rare in two cases of five."""
    common, mixed = "привет дом", "мир дом"
    rows = [Example(common, None, 0)] * 100
    rows += [Example(mixed, None, 0)] * 60 + [Example(mixed, None, 1)] * 40
    data = Labelled(rows, rows, ("common", "rare"))
    scores = {}
    for balance in (False, True):
        out = tmp_path / str(balance)
        run(checkpoint, Classes(data, balance), out, epochs=20, learning_rate=0.05, batch_size=50)
        scores[balance] = read_metrics(out / "metrics.jsonl")[-1]["macro_f1"]
    assert scores[False] == pytest.approx(160 / 180 / 2, abs=1e-4)  # never rare
    assert scores[True] == pytest.approx((200 / 260 + 80 / 140) / 2, abs=1e-4)


def tagged() -> Entities:
    """ "мир" is a place after "дом", and a person after "сад"."""
    rows = []
    for first, kind in (("дом", "LOC"), ("сад", "PER")):
        for end in ("", " привет", " привет привет"):
            text = f"{first} мир{end}"
            rows.append(Tagged(text, ((4, 7, kind),)))
    return Entities(Labelled(rows, rows, ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")))


def test_entities_are_learnt_from_their_context(checkpoint, tmp_path):
    options = {"freeze_encoder": False, "epochs": 80, "learning_rate": 0.01, "batch_size": 3}
    scores = run(checkpoint, tagged(), tmp_path / "out", **options)
    assert scores == {"f1": 1.0, "precision": 1.0, "recall": 1.0}
    package = export(tmp_path / "out", tmp_path / "package", variants=("fp32",)).path
    (found,) = load(package).tag(["сад мир и дом мир"])
    assert {(e.text, e.label) for e in found} <= {("мир", "PER"), ("мир", "LOC")}
    assert [e.label for e in load(package).tag(["сад мир"])[0]] == ["PER"]


def test_a_package_reads_windows_as_long_as_those_of_its_training(checkpoint, tmp_path):
    run(checkpoint, tagged(), tmp_path / "out", epochs=1, max_length=9)
    package = export(tmp_path / "out", tmp_path / "package", variants=("fp32",))
    assert package.manifest.max_length == 9


def test_word_labels_belong_to_the_first_piece_of_each_word(checkpoint):
    reader = open_reader(checkpoint, 32)
    text = "привет, перевод мир дом"  # "перевод" is several pieces
    (placed,) = reader.locate([text])
    marks = list(word_labels(placed, ((8, 19, "X"), (20, 23, "X"))))
    assert [placed.words[i] for i, _ in marks] == sorted(set(placed.words))
    assert [m for _, m in marks] == ["O", "O", "B-X", "I-X", "B-X"]


def test_answers_are_learnt_and_read_in_windows(checkpoint, tmp_path):
    """The answer is the word after "сад", wherever it stands."""
    rows = []
    for word in ("мир", "дом"):
        for before in range(0, 12, 2):
            context = "привет " * before + f"сад {word} " + "привет " * (12 - before)
            start = context.index("сад") + 4
            rows.append(Asked("привет", context, ((start, start + 3),)))
    kind = Answers(Labelled(rows, rows, ("start", "end")))
    options = {"freeze_encoder": False, "learning_rate": 0.01, "batch_size": 8, "max_length": 14}
    scores = run(checkpoint, kind, tmp_path / "out", epochs=60, **options)
    assert scores["f1"] == scores["em"] == 1.0
    package = export(tmp_path / "out", tmp_path / "package", variants=("fp32",)).path
    (found,) = load(package).answer([("привет", "привет привет сад дом привет")])
    assert (found.text, found.start) == ("дом", 18)


def test_windows_without_the_answer_point_at_their_beginning(checkpoint):
    asked = Asked("дом", "привет " * 20 + "мир", ((140, 143),))
    kind = Answers(Labelled([asked], [asked], ("start", "end")))
    rows = kind.rows(open_reader(checkpoint, 12), max_length=12)
    ends = [tuple(r.target.argmax(0)) for r in rows]
    assert set(ends[:-1]) == {(0, 0)} and len(rows) > 2
    last, _ = ends[-1]
    assert last == len(rows[-1].pieces.ids) - 2 and ends[-1][0] == ends[-1][1]


def test_a_tuned_teacher_takes_the_place_of_the_labels(checkpoint, tmp_path):
    """Trained on labels that are all wrong, a student follows its teacher, who knows."""
    right = labelled(12, 12)
    teacher = tmp_path / "teacher"
    run(checkpoint, right, teacher, epochs=30, learning_rate=0.05, batch_size=4)
    wrong = [Example(e.text, e.pair, 1 - e.label) for e in right.data.train]
    kind = Classes(Labelled(wrong, right.data.dev, right.labels))
    options = {"epochs": 30, "learning_rate": 0.05, "batch_size": 4}
    assert run(checkpoint, kind, tmp_path / "alone", **options)["accuracy"] == 0
    followed = run(checkpoint, kind, tmp_path / "followed", soft=teacher, **options)
    assert followed["accuracy"] == 1


def test_a_teacher_of_entities_tells_words(checkpoint, tmp_path):
    options = {"freeze_encoder": False, "epochs": 80, "learning_rate": 0.01, "batch_size": 3}
    teacher = tmp_path / "teacher"
    run(checkpoint, tagged(), teacher, **options)
    blank = [Tagged(t.text, ()) for t in tagged().data.train]
    kind = Entities(Labelled(blank, tagged().data.dev, tagged().labels))
    assert run(checkpoint, kind, tmp_path / "followed", soft=teacher, **options)["f1"] == 1


def test_a_teacher_of_other_labels_is_refused(checkpoint, tmp_path):
    run(checkpoint, labelled(4, 4), tmp_path / "teacher", epochs=1)
    with pytest.raises(
        InputError,
        match="with a, b, expected classification with a, b, c",
    ):
        run(checkpoint, labelled(4, 4, 4), tmp_path / "out", soft=tmp_path / "teacher")
    with pytest.raises(InputError, match=r"head\.safetensors: no such file"):
        run(checkpoint, labelled(4, 4), tmp_path / "other", soft=checkpoint)


def test_it_stops_when_dev_gets_no_better(checkpoint, tmp_path):
    out = tmp_path / "out"
    run(checkpoint, labelled(12, 12), out, epochs=50, patience=2, learning_rate=0.05, batch_size=4)
    scores = [r["macro_f1"] for r in read_metrics(out / "metrics.jsonl")]
    assert len(scores) < 50 and max(scores) == scores[-3]


def test_an_unknown_metric_is_told(checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="finetune.metric = 'bleu': expected one of accuracy"):
        run(checkpoint, labelled(4, 4), tmp_path / "out", metric="bleu")
