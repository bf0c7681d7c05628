"""Plain search and classification, and what they find beside an encoder."""

import json

import numpy as np
import pytest

from rubert_lite.errors import ConfigError
from train import evaluate as module
from train.evaluate import evaluate
from train.evaluated import load_evaluation
from train.probes import Bitext
from train.tasks import Task
from train.tfidf import probe_terms, recall_beside, recall_terms


@pytest.mark.parametrize("kind", ["words", "characters"])
def test_terms_tell_what_they_can_tell(classes, kind):
    assert probe_terms(classes, kind) == {"linear": 1.0}
    pairs = Task("p", classes.train, classes.dev, "accuracy", pair="text")
    assert probe_terms(pairs, kind) == {}


def test_terms_find_the_documents_that_have_them():
    bitext = Bitext(["где кот", "чай", "ничего"], ["кот на окне", "пьют чай", "пёс"])
    # A query without a word of any document is as near to all: it finds nothing.
    assert recall_terms(bitext, "words")["recall@1"] == pytest.approx(2 / 3)
    inflected = Bitext(["окном", "чаем"], ["кот на окне", "пьют чай"])
    assert recall_terms(inflected, "words")["recall@1"] == 0
    assert recall_terms(inflected, "characters")["recall@1"] == 1


def test_cosine_and_terms_find_more_together_than_apart():
    bitext = Bitext(["кот", "щенок"], ["кот на окне", "пёс во дворе"])
    cosines = np.array([[0.1, 0.2], [0.1, 0.2]], dtype=np.float32)  # knows what a puppy is
    assert recall_terms(bitext, "words")["recall@1"] == 0.5
    found = recall_beside(bitext, cosines)
    assert found["beside words"]["recall@1"] == found["beside characters"]["recall@1"] == 1


SEARCH = """
[[retrieval]]
name = "search"
file = "{file}"
query = "q"
document = "d"
unique = true
beside = true
[[systems]]
name = "words"
kind = "words"
[[tables]]
file = "{out}/README.md"
place = "results"
kind = "recall"
retrieval = "search"
systems = ["words", "tiny"]
"""


def test_questions_are_asked_among_passages_that_stand_there_once(configured, tmp_path):
    asked = [("кот", "кот ест суп"), ("суп", "кот ест суп"), ("чай", "пёс пьёт чай")]
    file = tmp_path / "search.jsonl"
    file.write_text("\n".join(json.dumps({"q": q, "d": d}) for q, d in asked), encoding="utf-8")
    text = configured.read_text(encoding="utf-8")
    text = text[: text.index("[[tables]]")]
    configured.write_text(text + SEARCH.format(file=file, out=tmp_path), encoding="utf-8")
    config = load_evaluation(configured)
    assert module.read_bitext(config.retrieval[0]).queries == ["кот", "чай"]
    results = evaluate(config)
    assert results["words"]["search"] == {"recall@1": 1.0, "recall@10": 1.0}
    assert results["tiny"]["search"]["beside words"]["recall@10"] == 1.0
    table = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| search | R@1 | R@10 | beside words: R@1 | beside words: R@10 |" in table
    assert "| words | 1.000 | 1.000 |  |  |  |  |" in table
    with pytest.raises(ConfigError, match="no retrieval 'search'"):
        load_evaluation(configured, ["retrieval=[]"])
