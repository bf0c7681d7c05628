import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from export.pack import export
from export.unpack import unpack
from rubert_lite import load
from rubert_lite.errors import ConfigError, InputError
from train.checkpoint import read_metrics, write_checkpoint
from train.finetune import Tuning, _loss, finetune
from train.heads import Classes, Entities, class_scores, class_weights, word_labels
from train.labelled import (
    Example,
    Labelled,
    Tagged,
)
from train.loading import load_masked_lm
from train.tuned import Tuned, open_reader, pad

from .toy_tuning import PIECES, write_tiny


@pytest.fixture
def checkpoint(tmp_path):
    return write_tiny(tmp_path)


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


def test_a_rare_class_has_its_share_of_the_loss_in_small_batches(checkpoint, monkeypatch):
    """Texts that are all alike: with half of the weight each, neither class wins."""
    rows = [Example("привет дом", None, int(k % 50 == 7)) for k in range(400)]
    kind = Classes(Labelled(rows, rows, ("common", "rare")), balance=True)
    given = kind.rows(open_reader(checkpoint, 12), max_length=12)
    model = load_masked_lm(checkpoint)
    tuned = Tuned(model, torch.nn.Linear(16, 2), kind.task, kind.labels, 12)
    gradients = []
    for size in (len(given), 20):
        tuned.head.zero_grad()
        for k in range(0, len(given), size):
            batch = given[k : k + size]
            loss = _loss(tuned, batch, Tuning(), None, range(size)) * size / len(given)
            loss.backward()
        gradients.append(tuned.head.bias.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=0)
    chances = torch.softmax(tuned.logits(*(x for x in pad(given[:1])[:3]), 0.0), -1)[0]
    torch.testing.assert_close(gradients[0], chances - 0.5, atol=1e-5, rtol=0)


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


def test_entities_that_are_no_whole_words_are_counted(checkpoint, caplog):
    texts = [Tagged("дом мир", ((0, 3, "X"), (4, 6, "X"))), Tagged("(сад)", ((1, 4, "X"),))]
    kind = Entities(Labelled(texts, texts, ("O", "B-X", "I-X")))
    kind.rows(open_reader(checkpoint, 12), max_length=12)
    assert "1 of 3 entities are no whole words" in caplog.text


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
    pairs = Classes(Labelled(*2 * ([Example("лес", "дом", k) for k in (0, 1)],), ("a", "b")))
    with pytest.raises(InputError, match="a teacher of texts, expected one of pairs"):
        run(checkpoint, pairs, tmp_path / "pairs", soft=tmp_path / "teacher")


def test_it_stops_when_dev_gets_no_better(checkpoint, tmp_path):
    out = tmp_path / "out"
    run(checkpoint, labelled(12, 12), out, epochs=50, patience=2, learning_rate=0.05, batch_size=4)
    scores = [r["macro_f1"] for r in read_metrics(out / "metrics.jsonl")]
    assert len(scores) < 50 and max(scores) == scores[-3]


def test_a_loss_that_is_no_number_ends_it(checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="not finite in epoch 1: lower finetune.learning_rate"):
        run(checkpoint, labelled(40, 40), tmp_path / "out", learning_rate=1e38, batch_size=4)
    assert not (tmp_path / "out" / "head.safetensors").exists()


def test_a_head_on_a_frozen_encoder_leaves_it_its_length(checkpoint, tmp_path):
    """One model encodes and does its task: its vectors of long texts stay, too."""
    for frozen, length in ((True, 32), (False, 8)):
        out = tmp_path / str(frozen)
        run(checkpoint, labelled(8, 8), out, epochs=1, max_length=8, freeze_encoder=frozen)
        package = export(out, tmp_path / f"{frozen}-package", variants=("fp32",))
        assert package.manifest.max_length == length
    again = tmp_path / "again"
    again.mkdir()
    write_checkpoint(again, load_masked_lm(tmp_path / "False"), checkpoint, provenance={})
    assert "tuned_" not in (again / "config.json").read_text()


@pytest.mark.parametrize(("second", "inputs"), [(None, "texts"), ("дом", "pairs")])
def test_a_classifier_knows_whether_it_reads_pairs(checkpoint, tmp_path, second, inputs):
    words = [Example(f"{PIECES[k]} дом", second, k) for k in (0, 1) for _ in range(8)]
    run(checkpoint, Classes(Labelled(words, words, ("a", "b"))), tmp_path / "out", epochs=1)
    assert export(tmp_path / "out", tmp_path / "p").manifest.inputs == inputs
    config = json.loads((tmp_path / "out" / "config.json").read_text()) | {"tuned_inputs": "x"}
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="tuned_inputs 'x', expected texts or pairs"):
        export(tmp_path / "out", tmp_path / "q")


@pytest.mark.parametrize(
    ("said", "expected"), [([0, 0, 1, 1], 1), ([0, 0, 1, 2], 5 / 6), ([0, 0, 1, 0], 11 / 15)]
)
def test_macro_f1_is_of_the_classes_that_are_there(said, expected):
    """A class that is only predicted does not change what is averaged."""
    found = class_scores(np.array(said), [0, 0, 1, 1])["macro_f1"]
    assert found == pytest.approx(expected, abs=1e-4)


def test_an_unknown_metric_is_told(checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="finetune.metric = 'bleu': expected one of accuracy"):
        run(checkpoint, labelled(4, 4), tmp_path / "out", metric="bleu")
