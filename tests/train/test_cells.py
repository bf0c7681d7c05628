"""Cells of results.json: whose they are, what they answer, and who writes them."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from train import evaluate as module
from train.evaluate import evaluate
from train.evaluated import load_evaluation
from train.results import changed_results, insert, read_results

GONE = """
[[systems]]
name = "gone"
kind = "package"
path = "no/package"
[[tables]]
file = "{out}/README.md"
place = "results"
kind = "neighbours"
systems = ["tiny", "gone"]
"""
TASK = """
[[tasks]]
name = "sentiment"
train = "{train}"
dev = "{train}"
metric = "auc"
"""


@pytest.fixture
def judged(configured, classes):
    """An evaluation of a task that stands in tables, and of a system that is not there."""
    text = configured.read_text(encoding="utf-8")
    text += TASK.format(train=classes.train) + GONE.format(out=configured.parent)
    configured.write_text(text, encoding="utf-8")
    return configured


def shown(configured, asked):
    """Return the lines of the table for a missing system whose cell is a 0.25 on record so."""
    path = configured.parent / "results.json"
    results = evaluate(load_evaluation(configured))
    results["gone"] = {"sentiment": {"knn": 0.25, "linear": 0.25}} | asked
    path.write_text(json.dumps(results), encoding="utf-8")
    assert evaluate(load_evaluation(configured))["gone"] == results["gone"]  # nothing is stamped
    lines = (configured.parent / "README.md").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith(("| tiny", "| gone"))]


def test_an_answer_to_another_question_stays_out_of_the_tables(judged, caplog):
    tiny, gone = shown(judged, {"asked": {"sentiment": "0123456789abcdef"}})
    assert "0.250" not in gone and "1.000" in tiny
    assert "gone: sentiment: the task's files or settings have changed" in caplog.text


def test_an_answer_to_this_question_and_one_without_a_record_stay(judged, caplog):
    assert "0.250" in shown(judged, {})[1]
    results = json.loads((judged.parent / "results.json").read_text(encoding="utf-8"))
    now = results["tiny"]["asked"]["sentiment"]
    assert "0.250" in shown(judged, {"asked": {"sentiment": now}})[1]
    assert "have changed" not in caplog.text


def test_what_cannot_be_asked_for_lack_of_its_file_is_not_called_another(judged, classes):
    text = judged.read_text(encoding="utf-8")
    evaluate(load_evaluation(judged))
    here = text[text.index('[[systems]]\nname = "tiny"') : text.index("[[tables]]")]
    judged.write_text(text.replace(here, here.replace("texts.txt", "none.txt")), encoding="utf-8")
    path = judged.parent / "results.json"
    results = json.loads(path.read_text(encoding="utf-8"))
    results["gone"] = {"sentiment": {"knn": 0.25}, "asked": {"sentiment": "0123456789abcdef"}}
    path.write_text(json.dumps(results), encoding="utf-8")
    Path(classes.train).unlink()
    evaluate(load_evaluation(judged))
    assert "0.250" in (judged.parent / "README.md").read_text(encoding="utf-8")


def test_cells_that_are_not_computed_anew_get_no_record(configured):
    results = evaluate(load_evaluation(configured))
    del results["tiny"]["asked"]["food"]
    path = configured.parent / "results.json"
    path.write_text(json.dumps(results), encoding="utf-8")
    assert evaluate(load_evaluation(configured)) == results
    assert "food" in evaluate(load_evaluation(configured), force=True)["tiny"]["asked"]


def test_evaluations_at_once_keep_each_others_rows(configured, classes, monkeypatch):
    """Another process writes its row, and a cell of this one's, while this one computes."""
    path = configured.parent / "results.json"
    kept = module.probe

    def probe(task, encode):
        results = json.loads(path.read_text(encoding="utf-8"))
        results["other"] = {"fingerprint": "x", "food": {"linear": 0.5}}
        results["tiny"]["more"] = {"linear": 0.75}
        path.write_text(json.dumps(results), encoding="utf-8")
        return kept(task, encode)

    monkeypatch.setattr(module, "probe", probe)
    for found in (evaluate(load_evaluation(configured)), json.loads(path.read_text("utf-8"))):
        assert found["other"] == {"fingerprint": "x", "food": {"linear": 0.5}}
        assert found["tiny"]["more"] == {"linear": 0.75} and "linear" in found["tiny"]["food"]


def test_rows_are_written_by_one_at_a_time(tmp_path):
    path = tmp_path / "results.json"

    def add(number):
        with changed_results(path) as results:
            time.sleep(0.005)  # for another to read what is about to change
            results[f"row {number}"] = {}

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(24)))
    assert len(read_results(path)) == 24


def test_a_row_that_another_began_by_other_files_is_not_added_to(configured, monkeypatch):
    path = configured.parent / "results.json"
    kept = module.probe

    def probe(task, encode):
        results = {"tiny": {"fingerprint": "other files", "more": {"linear": 0.75}}}
        path.write_text(json.dumps(results), encoding="utf-8")
        return kept(task, encode)

    monkeypatch.setattr(module, "probe", probe)
    row = evaluate(load_evaluation(configured))["tiny"]
    assert row["fingerprint"] != "other files" and "more" not in row and "food" in row


def test_a_text_with_a_table_is_written_whole(tmp_path):
    """Who reads it meanwhile has the former one, not a part."""
    path = tmp_path / "README.md"
    path.write_text("a\n<!-- t -->\n<!-- /t -->\n", encoding="utf-8")
    with path.open(encoding="utf-8") as reader:
        insert(path, "t", ["| ё |"])
        assert reader.read() == "a\n<!-- t -->\n<!-- /t -->\n"
    assert path.read_text(encoding="utf-8") == "a\n<!-- t -->\n| ё |\n<!-- /t -->\n"
