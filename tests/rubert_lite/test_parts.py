"""What a scheduler such as a server's takes from a model: pieces, rows, predictions, places."""

import numpy as np
import pytest

from rubert_lite import InputError, Model


def test_the_parts_of_encode_and_classify_for_schedulers(model: Model, classifier: Model) -> None:
    texts = ["Привет, мир", "Привет, день", "мир"]
    pieces = model.read(texts)
    assert [len(p.ids) for p in pieces[:2]] == [len(pieces[0].ids)] * 2
    rows = model.compute(pieces[:2], "sentence_embedding")
    assert np.array_equal(rows, model.encode(texts[:2]))
    pair = ("мир", "и день")
    logits = classifier.compute(classifier.read([pair], pairs=True), "logits")
    assert classifier.predictions(logits, top_k=2) == classifier.classify([pair], top_k=2)
    with pytest.raises(InputError, match=r"texts\[1\]"):
        model.read(["мир", 3])  # type: ignore[list-item]


def test_spans_are_places_in_the_normalised_text(model: Model) -> None:
    spans = model.spans("Привет,  мир")
    assert [(s.piece, s.start, s.stop) for s in spans] == [
        ("[CLS]", None, None),
        ("Привет", 0, 6),
        (",", 6, 7),
        ("мир", 9, 12),
        ("[SEP]", None, None),
    ]
    assert [s.id for s in spans] == model.read(["Привет,  мир"])[0].ids
    assert model.variant == "fp32"
