"""Which cells of a comparison can stand in one table."""

import json
from pathlib import Path

import pytest

from rubert_lite.errors import InputError
from train.compare import compare
from train.compared import line_of, load_comparison
from train.identity import (
    cell_identity,
    check_text,
    mark_teachers,
    teacher_weights,
)
from train.line import run_line

from .toy_comparison import TEACHER


def made(teacher, text="t"):
    cell = {"made_from": {"text": text, "teacher": teacher}}
    return {"facts": {}, "seeds": {"1": {"tasks": {"food": cell}}, "2": {"tasks": {}}}}


def test_what_a_student_follows_from_is_in_its_identity(comparison, tmp_path):
    def identities():
        found = load_comparison(tmp_path / "c.toml")
        return {s.name: cell_identity(found, s, found.tasks[0]) for s in found.students}

    before = identities()
    (tmp_path / "teacher.toml").write_text(TEACHER + "mlm = 0.9\n", encoding="utf-8")
    after = identities()
    assert all(before[name] != after[name] for name in before)
    (tmp_path / "words.txt").write_text("другие слова\n", encoding="utf-8")
    assert all(after[name] != now for name, now in identities().items())


def test_cells_of_another_corpus_do_not_share_a_table(comparison):
    compare(comparison, only=["teacher"])
    written = Path("results.json").read_text()
    line = line_of(comparison, comparison.students[1], 1)
    run_line(line, ["corpus"])
    valid = line.folder("01-corpus") / "valid.txt"
    valid.write_text("другой текст\n", encoding="utf-8")  # the settings say nothing of it
    with pytest.raises(InputError, match=r"results.json: 1 students .*\(teacher, seed 42") as told:
        compare(comparison, only=["match"])
    assert "--set results=PATH" in str(told.value)
    assert Path("results.json").read_text() == written
    assert not line.folder("04-student").exists()  # told before it is trained
    elsewhere = comparison.model_copy(update={"results": "other.json"})
    compare(elsewhere, only=["match"], seeds=[1], tasks=["food"])
    found = json.loads(Path("other.json").read_text())["match"]["seeds"]["1"]["tasks"]["food"]
    assert found["made_from"]["teacher"] == teacher_weights(comparison) != "unknown"


def test_cells_whose_corpus_is_not_on_record_are_told(comparison):
    compare(comparison, only=["teacher"])
    results = json.loads(Path("results.json").read_text())
    del results["teacher"]["seeds"]["42"]["tasks"]["mood"]["made_from"]
    Path("results.json").write_text(json.dumps(results))
    with pytest.raises(InputError, match="or it is not on record what they read"):
        compare(comparison, only=["match"])


def test_cells_that_no_longer_count_forbid_nothing():
    rows = {"a": made("x", text="old")}
    with pytest.raises(InputError):
        check_text(rows, "new", Path("r.json"))
    rows["a"]["seeds"]["1"]["tasks"] = {}  # their settings were changed
    check_text(rows, "new", Path("r.json"))


def test_rows_of_another_teacher_are_marked():
    rows = {"teacher": made("x"), "a": made("x"), "b": made("y"), "c": {"facts": {}, "seeds": {}}}
    assert list(mark_teachers(rows, "teacher")) == ["teacher", "a", "b †", "c"]
    del rows["teacher"]
    rows["d"] = made("y")
    rows["d"]["seeds"]["1"]["tasks"]["mood"] = rows["b"]["seeds"]["1"]["tasks"]["food"]
    assert list(mark_teachers(rows, "teacher")) == ["a †", "b", "c", "d"]
    rows["d"]["seeds"]["1"]["tasks"]["mood"] = rows["a"]["seeds"]["1"]["tasks"]["food"]
    assert list(mark_teachers(rows, "teacher"))[-1] == "d †"  # one of its tasks
