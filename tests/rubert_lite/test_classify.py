"""classify: labels, scores, pairs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rubert_lite import InputError, Model, Prediction, load
from rubert_lite.batches import join
from rubert_lite.engine import Batch
from rubert_lite.sound import check_numbers
from tests.rubert_lite.conftest import build


def test_predictions_are_softmax_in_order(classifier: Model) -> None:
    texts = ["мир", "день", ""]
    found = classifier.classify(texts)
    pooled = classifier.encode(texts, normalize=False)
    logits = classifier._engine.run(_batch_of(classifier, "день"), "logits")[0]
    expected = np.exp(logits) / np.exp(logits).sum()
    scores = found[1].scores
    assert {
        k: pytest.approx(v, abs=1e-6) for k, v in zip(classifier.labels, expected, strict=True)
    } == scores
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert found[1] == Prediction(next(iter(scores)), max(scores.values()), scores)
    assert pooled.shape == (3, 8)
    assert set(scores) == {"добро", "зло", "ничто"}


def _batch_of(model: Model, text: Any) -> Batch:
    return join(model.read([text], pairs=True), [0], with_types=True)


def test_token_types_begin_with_the_second_text(classifier: Model) -> None:
    batch = _batch_of(classifier, ("мир", "и день"))
    assert batch.feeds["input_ids"].shape == (1, 6)
    assert batch.feeds["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1]]
    batch = _batch_of(classifier, "мир и день")
    assert batch.feeds["token_type_ids"].tolist() == [[0, 0, 0, 0, 0]]


def test_top_k(classifier: Model) -> None:
    [full] = classifier.classify(["мир"])
    [best] = classifier.classify(["мир"], top_k=2)
    assert list(best.scores.items()) == list(full.scores.items())[:2]
    assert (best.label, best.score) == (full.label, full.score)
    assert classifier.classify(["мир"], top_k=99) == [full]
    for wrong in (0, -1, "1", True):
        with pytest.raises(InputError, match="top_k"):
            classifier.classify(["мир"], top_k=wrong)  # type: ignore[arg-type]


def test_pairs_are_not_their_texts_joined(classifier: Model) -> None:
    pair, turned, listed, text = classifier.classify(
        [("мир", "и день"), ("и день", "мир"), ["мир", "и день"], "мир и день"]  # type: ignore[list-item]
    )
    assert pair == listed
    assert pair.scores != turned.scores  # token types
    assert pair.scores != text.scores
    for wrong in (("мир",), ("мир", None), ("a", "b", "c"), {"a": "b"}):
        with pytest.raises(InputError, match=r"texts\[1\]: \w+, expected a string or a pair"):
            classifier.classify(["мир", wrong])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"texts\[0\]: tuple"):
        classifier.encode([("мир", "день")])  # type: ignore[list-item]


def test_model_without_labels_does_not_classify(model: Model) -> None:
    for texts in ([], ["мир"]):
        with pytest.raises(
            InputError, match=r"tiny: a model for embedding, classify needs.*rubert-lite models"
        ):
            model.classify(texts)


@pytest.mark.parametrize(
    ("inputs", "given", "message"),
    [
        ("pairs", "мир", r"texts\[1\]: a string, expected a pair of strings"),
        ("texts", ("мир", "и день"), r"texts\[1\]: a pair, expected a string: the model"),
    ],
)
def test_a_classifier_refuses_what_it_was_not_trained_on(
    tmp_path: Path, inputs: str, given: Any, message: str
) -> None:
    package = build(tmp_path / "p", labels=("добро", "зло"), with_types=True, inputs=inputs)
    model = load(package, lanes=1)
    check_numbers(model, "p")  # which tries the head
    good: Any = ("мир", "день") if inputs == "pairs" else "мир"
    assert len(model.classify([good])) == len(model.read([good], pairs=True)) == 1
    assert model.encode(["мир"]).shape == (1, 8)  # vectors are of texts, whatever the head reads
    with pytest.raises(InputError, match=message):
        model.classify([good, given])
    with pytest.raises(InputError, match=message):
        model.read([good, given], pairs=True)
