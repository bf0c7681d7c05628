import json

import pytest
import torch
from safetensors.torch import load_file

from rubert_lite.errors import InputError
from tests.train.conftest import wordpiece
from train.checkpoint import read_metrics, write_checkpoint
from train.finetune import Example, Keys, Labelled, Tuning, class_weights, finetune, read_labelled
from train.student import Shape, build, load_masked_lm

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


def labelled(*counts: int) -> Labelled:
    words = [Example(f"{PIECES[k]} дом", None, k) for k, n in enumerate(counts) for _ in range(n)]
    return Labelled(words, words, tuple("abcd"[: len(counts)]))


def test_a_head_learns_on_a_frozen_encoder(checkpoint, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    tuning = Tuning(epochs=30, learning_rate=0.05, batch_size=4)
    scores = finetune(checkpoint, labelled(12, 12), tuning=tuning, out=out)
    assert scores == {"accuracy": 1.0, "macro_f1": 1.0}
    assert json.loads((out / "config.json").read_text())["id2label"] == {"0": "a", "1": "b"}
    head = load_file(out / "head.safetensors")
    assert head["weight"].shape == (2, 16) and head["bias"].shape == (2,)
    before, after = (load_masked_lm(p).state_dict() for p in (checkpoint, out))
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_an_encoder_can_learn_along(checkpoint, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    tuning = Tuning(freeze_encoder=False, epochs=2, learning_rate=0.01, batch_size=8)
    finetune(checkpoint, labelled(8, 8), tuning=tuning, out=out)
    before, after = (load_masked_lm(p).state_dict() for p in (checkpoint, out))
    assert any(not torch.equal(before[k], after[k]) for k in before)


def test_balanced_classes_weigh_the_same_in_sum():
    weights = class_weights(labelled(90, 9, 1))
    assert weights.tolist() == pytest.approx([100 / 270, 100 / 27, 100 / 3])
    assert float(weights @ torch.tensor([90.0, 9.0, 1.0])) == pytest.approx(100)


def test_balance_finds_a_rare_class(checkpoint, tmp_path):
    """Of two texts one is always common, the other is rare in two cases of five."""
    common, mixed = "привет дом", "мир дом"
    rows = [Example(common, None, 0)] * 100
    rows += [Example(mixed, None, 0)] * 60 + [Example(mixed, None, 1)] * 40
    data = Labelled(rows, rows, ("common", "rare"))
    scores = {}
    for balance in (False, True):
        out = tmp_path / str(balance)
        out.mkdir()
        tuning = Tuning(epochs=20, learning_rate=0.05, batch_size=50, balance=balance)
        finetune(checkpoint, data, tuning=tuning, out=out)
        scores[balance] = read_metrics(out / "metrics.jsonl")[-1]["macro_f1"]
    assert scores[False] == pytest.approx(160 / 180 / 2, abs=1e-4)  # never rare
    assert scores[True] == pytest.approx((200 / 260 + 80 / 140) / 2, abs=1e-4)


@pytest.mark.parametrize(
    ("train", "dev", "names", "message"),
    [
        ([{"text": "а", "label": 1}], [], {}, "at least two"),
        ([{"text": "а"}], [], {}, "no 'label'"),
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
