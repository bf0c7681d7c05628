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


def test_spans_are_places_in_the_text_as_given(model: Model) -> None:
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


def test_spans_of_long_texts_and_dropped_characters_are_theirs(model: Model) -> None:
    """Past the bound of characters, too: white space is not counted as one there."""
    text = "ми\u0301р  и\n\n" * 2000
    spans = model.spans(text)
    assert {text[s.start : s.stop] for s in spans[1:-1]} == {"ми\u0301р", "и"}
    assert len(spans) == 4002


def test_rows_of_padding_change_nothing(reader: Model, tagger: Model) -> None:
    """What graphs that read padded texts return, such as fp16."""
    asked = [("мир?", "вот добрый день. мир"), ("мир", "день " * 40)]
    found: list[list[object]] = []
    for padding in (0, 3):
        rows = []
        for reading in (reader.read_answers(asked), tagger.read_entities(["мир и день"])):
            model = reader if not rows else tagger
            logits = [model.compute([w], "logits")[0] for w in reading.windows]
            noise = np.full((padding, logits[0].shape[1]), 9.0, np.float32)
            rows.append(reading.finish([np.concatenate([x, noise]) for x in logits]))
        found.append(rows)
    assert found[0] == found[1] == [reader.answer(asked), tagger.tag(["мир и день"])]
