"""What probes and measures say."""

import numpy as np
import pytest

from rubert_lite.errors import InputError
from train.probes import (
    Bitext,
    perturbations,
    probe,
    recall,
    recall_by_length,
    robustness,
)
from train.tasks import Task, measure

from .toy_tasks import WORDS, encode, write_jsonl


@pytest.mark.parametrize(
    ("metric", "expected"), [("accuracy", 0.75), ("macro_f1", 0.7333), ("mcc", 0.57735)]
)
def test_measures(metric, expected):
    found = measure(metric, list("aabb"), np.asarray(list("aaab")), None)
    assert found == pytest.approx(expected, abs=1e-4)


def test_auc_wants_two_labels():
    with pytest.raises(InputError, match="3 labels, expected two"):
        measure("auc", list("abc"), np.asarray(list("abc")), np.ones(3))


def test_recall_counts_the_own_document_first_and_among_ten():
    documents = np.eye(12, dtype=np.float32)
    queries = documents.copy()
    queries[0] = 1 - documents[0]
    queries[1] = documents[0] * 0.9 + documents[1] * 0.5
    assert recall(queries, documents) == {"recall@1": 10 / 12, "recall@10": 11 / 12}
    assert recall(np.ones_like(queries), documents)["recall@10"] == 0


def test_recall_by_length_and_with_changed_queries():
    bitext = Bitext(["кот", "чай", "пёс " * 20], ["кот", "чай", "пёс"])
    found = recall_by_length(bitext, encode(bitext.queries), encode(bitext.documents))
    assert found["0-29"] == {"recall@1": 1.0, "queries": 2}
    assert found["60-119"]["queries"] == 1
    changed = robustness(bitext, encode, encode(bitext.documents))
    assert changed["upper case"] == pytest.approx({"cosine": 1, "changed": 1, "recall@1": 1})
    # е for ё hides a word from this encoder.
    assert changed["е for ё"]["changed"] == pytest.approx(1 / 3)
    assert changed["е for ё"]["recall@1"] == pytest.approx(2 / 3)


def test_changes_keep_words_apart_and_put_the_stress_behind_a_vowel():
    changes = perturbations()
    assert changes["stress marks"]("мама мыла раму") == "ма\u0301ма мыла ра\u0301му"
    assert changes["no punctuation"]("Ну, да!") == "Ну да"


def test_vectors_that_are_no_numbers_find_nothing():
    with pytest.raises(InputError, match="not finite"):
        recall(np.full((3, 2), np.nan), np.ones((3, 2)))


def graded(tmp_path, *grades):
    records = [
        {"a": a, "b": "кот чай", "grade": g} for a, g in zip(WORDS, grades or range(4), strict=True)
    ]
    path = write_jsonl(tmp_path / "d.jsonl", records)
    return Task("likeness", "", path, "spearman", "a", "b", "grade")


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "not all finite"), (1.0, "are all 1: expected several")]
)
def test_vectors_without_an_order_are_told(tmp_path, value, message):
    task = graded(tmp_path)
    with pytest.raises(InputError, match=f"task 'likeness': the cosines .*{message}"):
        probe(task, lambda texts: np.full((len(texts), 4), value) * [1, 0, 0, 0])


def test_grades_without_an_order_are_told(tmp_path):
    with pytest.raises(InputError, match=r"the grades of .*d.jsonl are all 3"):
        probe(graded(tmp_path, 3, 3, 3, 3), encode)
    with pytest.raises(InputError, match=r"the grades of .*d.jsonl are not all finite"):
        probe(graded(tmp_path, 3, "nan", 3, 3), encode)


def test_a_class_too_rare_for_the_held_tenth_is_judged(tmp_path):
    rare = [{"text": "суп", "label": 1}] * 3
    common = [{"text": "кот", "label": 0}] * 97
    path = write_jsonl(tmp_path / "t.jsonl", [*rare, *common])
    assert probe(Task("rare", path, path, "auc"), encode) == {"linear": 1.0, "knn": 1.0}
