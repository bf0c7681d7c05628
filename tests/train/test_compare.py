import json
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from rubert_lite.errors import ConfigError, InputError, RubertLiteError
from train import compare as module
from train import line_tasks
from train.compare import compare, compare_at_once
from train.compare_speed import measure_speed
from train.compared import load_comparison, rows_of, tasks_of
from train.parallel import locked

from .toy_comparison import COMPARISON, TEACHER


@pytest.fixture
def config(comparison):
    return comparison


def test_a_table_is_there_after_every_cell(config, monkeypatch):
    tune, told = module._tune, []

    def killed(config, student, seed, task, line, identity):
        if told:
            raise KeyboardInterrupt
        told.append(task.name)
        return tune(config, student, seed, task, line, identity)

    monkeypatch.setattr(module, "_tune", killed)
    with pytest.raises(KeyboardInterrupt):
        compare(config, only=["teacher"])
    assert "| teacher |" in Path("README.md").read_text() and not Path("kept.png").exists()


def test_every_cell_is_computed_once(config, monkeypatch):
    compare(config, only=["teacher"])
    assert set(json.loads(Path("results.json").read_text())) == {"teacher"}
    compare(config)
    found = json.loads(Path("results.json").read_text())
    assert {n: sorted(r["seeds"]) for n, r in found.items()} == {
        "teacher": ["42"], "match": ["1", "2"], "not trained": ["42"], "match, soft": ["1"]
    }  # fmt: skip
    assert set(found["match"]["seeds"]["1"]["tasks"]) == {"food", "mood"}
    assert set(found["not trained"]["seeds"]["42"]["tasks"]) == {"food"}
    assert found["teacher"]["facts"]["parameters"] > found["match"]["facts"]["parameters"] > 0
    shorter = [found[n]["facts"]["pieces_per_1000"] for n in ("teacher", "match")]
    assert 0 < shorter[0] <= shorter[1]
    assert not list(Path("runs/compare").glob("*/06-*")) and Path("kept.png").stat().st_size > 1000
    table = Path("README.md").read_text()
    assert "| match |" in table and "food acc" in table
    monkeypatch.setattr(module, "_tune", None)  # nothing is left to do
    compare(config)


def test_cells_do_not_wait_for_a_report_of_another_process(config):
    compare(config, only=["teacher"])
    Path("README.md").write_text("<!-- comparison -->\n<!-- /comparison -->\n")
    with locked(Path("results.json.report")):
        module.report(config, wait=False)
    assert "teacher" not in Path("README.md").read_text()
    module.report(config, wait=False)
    assert "| teacher |" in Path("README.md").read_text()


def test_a_changed_cell_is_computed_anew(config, tmp_path, monkeypatch):
    compare(config, only=["teacher"])
    tuned = []
    monkeypatch.setattr(module, "_tune", lambda c, s, n, task, *_: tuned.append(task.name) or {})
    changed = COMPARISON.replace('score = "accuracy"', 'score = "accuracy"\nbatch_size = 8')
    (tmp_path / "c.toml").write_text(changed, encoding="utf-8")
    monkeypatch.setattr(module, "report", lambda *a, **k: None)  # the stand-in gives no scores
    changed_config = load_comparison(tmp_path / "c.toml")
    compare(changed_config, only=["teacher"])
    assert tuned == ["food"]
    tuned.clear()
    rows = (tmp_path / "food.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "food.jsonl").write_text("\n".join(rows[1:]) + "\n", encoding="utf-8")
    compare(changed_config, only=["teacher"])
    assert tuned == ["food", "mood"]


def test_the_table_has_the_cells_of_the_configuration_as_it_stands(config, tmp_path):
    compare(config, only=["match"])
    table = Path("README.md").read_text()
    assert "| match |" in table and "100.0" not in table  # without the teacher nothing is kept
    compare(config, only=["teacher"])
    both = Path("README.md").read_text()
    assert "±" in both and "x |" in both
    one = COMPARISON.replace("seeds = [1, 2]", "seeds = [1]")
    (tmp_path / "c.toml").write_text(one, encoding="utf-8")
    compare(load_comparison(tmp_path / "c.toml"), only=["match"])
    assert "±" not in Path("README.md").read_text()


def test_force_makes_stages_anew(config, tmp_path):
    compare(config, only=["match"])
    wider = COMPARISON.replace("{ kl = 1.0 }", "{ kl = 3.0 }")
    (tmp_path / "c.toml").write_text(wider, encoding="utf-8")
    changed = load_comparison(tmp_path / "c.toml")
    with pytest.raises(ConfigError, match="--force makes the stage again"):
        compare(changed, only=["match"])
    compare(changed, only=["match"], force=True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "match"', 'name = "teacher"', "students: 'teacher' stands twice"),
        ('tasks = ["food"]', 'tasks = ["fuud"]', "not trained: no task 'fuud'"),
        (
            "[tuning]\nepochs = 1",
            "[tuning]\nepoch = 1",
            "tuning.epoch: unknown key; did you mean 'epochs'",
        ),
        ('score = "accuracy"', 'score = "acc"', "tasks.food: score = 'acc', expected one of acc"),
        ("kl = 1.0", "kll = 1.0", "match: distil.kll: unknown key; did you mean 'kl'"),
        ('line = "teacher.toml"', 'line = "none.toml"', "teacher: none.toml: no such file"),
        ('like = "match"', 'like = "mach"', "like = 'mach' is no row that is trained"),
        ('like = "match"', 'like = "match"\nline = "t.toml"', "line, set and like exclude each"),
    ],
)
def test_mistakes_are_told_before_anything_runs(config, tmp_path, old, new, message):
    (tmp_path / "c.toml").write_text(COMPARISON.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_comparison(tmp_path / "c.toml")


def test_several_students_at_once_fill_the_same_table(config, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    command = [sys.executable, "-m", "train", "compare", "--config", "c.toml"]
    compare_at_once(config, command, jobs=2)
    found = json.loads(Path("results.json").read_text())
    assert {n: sorted(r["seeds"]) for n, r in found.items()} == {
        "teacher": ["42"], "match": ["1", "2"], "not trained": ["42"], "match, soft": ["1"]
    }  # fmt: skip
    table = Path("README.md").read_text()
    assert "| match |" in table and "| not trained |" in table
    broken = [*command, "--set", "line='none.toml'"]
    with pytest.raises(
        RubertLiteError, match="these students failed: match, seed 1, match, seed 2"
    ):
        compare_at_once(config, broken, jobs=2, only=["match"])
    with pytest.raises(ConfigError, match="--only x: no such student"):
        compare_at_once(config, command, jobs=2, only=["x"])


def test_a_cell_that_two_are_asked_for_is_computed_once(config, monkeypatch):
    compare(config, only=["teacher"])
    began, may_end, tuned = threading.Event(), threading.Event(), []

    def tune(*given):
        tuned.append(given[3].name)
        began.set()
        assert may_end.wait(60)
        return {"accuracy": 1.0, "macro_f1": 1.0}

    monkeypatch.setattr(module, "_tune", tune)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(compare, config, only=["match"], seeds=[1])
        assert began.wait(60)
        second = pool.submit(compare, config, only=["match"], seeds=[1])
        with pytest.raises(TimeoutError):
            second.result(timeout=0.5)
        may_end.set()
        assert first.result(60) is second.result(60) is None
    assert tuned == ["food", "mood"]


def test_students_are_timed_as_they_would_run(config, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    compare(config, only=["teacher"])
    measure_speed(config)
    found = json.loads(Path("results.json").read_text())
    assert list(found) == ["teacher"] and found["teacher"]["facts"]["ms"] > 0
    assert f"| {found['teacher']['facts']['ms']:.2f} |" in Path("README.md").read_text()
    compare(config, only=["teacher"], force=True)  # a new cell leaves the time where it is
    assert "ms" in json.loads(Path("results.json").read_text())["teacher"]["facts"]
    compare(config, only=["match"], seeds=[1])
    measure_speed(config)  # the trained student of seed 1, and none for rows without results
    found = json.loads(Path("results.json").read_text())
    assert set(found) == {"teacher", "match"} and found["match"]["facts"]["ms"] > 0
    shutil.rmtree("runs/compare/match-1")
    found["match"]["facts"].pop("ms")
    Path("results.json").write_text(json.dumps(found), encoding="utf-8")
    measure_speed(config)  # none lies there: one with random weights is timed
    assert json.loads(Path("results.json").read_text())["match"]["facts"]["ms"] > 0
    assert len(list(Path("runs/compare").glob("untrained-*"))) == 1
    for name in ("teacher", "compare/untrained-*"):
        shutil.rmtree(next(Path("runs").glob(name)))
    measure_speed(config)  # no teacher is trained for it: times stay what they were
    assert json.loads(Path("results.json").read_text())["match"]["facts"]["ms"] > 0
    assert not Path("runs/teacher/04-student").exists()
    compare(config, only=["teacher"], force=True)
    wider = TEACHER + "[student]\nffn_size = 48\n"
    Path("teacher.toml").write_text(wider, encoding="utf-8")
    compare(load_comparison(Path("c.toml")), only=["teacher"], force=True)  # another student
    assert "ms" not in json.loads(Path("results.json").read_text())["teacher"]["facts"]


def test_an_unknown_student_or_seed_is_told(config):
    with pytest.raises(ConfigError, match="--only x: no such student"):
        compare(config, only=["x"])
    with pytest.raises(ConfigError, match="--seed 2: no student that was asked for has it"):
        compare(config, only=["teacher"], seeds=[2])
    with pytest.raises(ConfigError, match="--task x: no such task"):
        compare(config, tasks=["x"])


def test_a_row_of_soft_labels_asks_for_its_teacher_first(config):
    with pytest.raises(InputError, match=r"is not there: run --only 'teacher' --task \w+ first"):
        compare(config, only=["match, soft"])
    assert not [*Path("runs").rglob("04-student")]  # before anything was trained


def test_a_teacher_that_other_settings_tuned_is_refused(config, tmp_path):
    """What soft labels came from decides what they are worth."""
    compare(config, only=["teacher"], tasks=["food"])
    (tmp_path / "c.toml").write_text(COMPARISON.replace("epochs = 1\n[[s", "epochs = 2\n[[s"))
    other = load_comparison(tmp_path / "c.toml")
    with pytest.raises(InputError, match="was made by other settings: run --only 'teacher'"):
        compare(other, only=["match, soft"])
    compare(other, only=["teacher"], tasks=["food"])
    compare(other, only=["match, soft"])
    cells = json.loads(Path("results.json").read_text())["match, soft"]["seeds"]["1"]["tasks"]
    assert set(cells) == {"food"}


def test_who_taught_a_row_is_what_taught_it_then(config, monkeypatch):
    """A teacher that was trained again is another one for new students alone."""
    compare(config, only=["match"], seeds=[1], tasks=["food"])
    weights = Path("runs/teacher/04-student/model.safetensors")
    tensors = load_file(weights)
    name = next(n for n in tensors if n.endswith("LayerNorm.weight"))
    save_file({**tensors, name: tensors[name] + 1}, weights, {"format": "pt"})
    compare(config, only=["match"], tasks=["mood"])  # seed 2 is trained now
    seeds = json.loads(Path("results.json").read_text())["match"]["seeds"]
    first, second = (seeds[s]["tasks"]["mood"]["made_from"]["teacher"] for s in "12")
    assert first == seeds["1"]["tasks"]["food"]["made_from"]["teacher"] != second


def test_force_tunes_anew_what_lies_there(config, monkeypatch):
    tuned, tune = [], line_tasks.finetune
    monkeypatch.setattr(line_tasks, "finetune", lambda *a, **k: tuned.append(a) or tune(*a, **k))
    for force in (False, False, True):
        compare(config, only=["teacher"], tasks=["food"], force=force)
    assert len(tuned) == 2


def test_first_seeds_come_first(config):
    found = [(s.name, seed) for s, seed in rows_of(config)]
    assert found == [
        ("teacher", 42), ("match", 1), ("not trained", 42), ("match, soft", 1), ("match", 2)
    ]  # fmt: skip
    assert [(s.name, seed) for s, seed in rows_of(config, ["match"], [2])] == [("match", 2)]


def test_a_task_aside_is_for_first_seeds_alone(config):
    told, aside = config.tasks[0], config.tasks[0].model_copy(update={"name": "b", "aside": True})
    config = config.model_copy(update={"tasks": [told, aside]})
    match = config.students[1]
    assert [t.name for t in tasks_of(config, match, 1)] == [told.name, "b"]
    assert [t.name for t in tasks_of(config, match, 2)] == [told.name]
    assert [t.name for t in tasks_of(config, match, 1, ["b"])] == ["b"]


def test_a_task_that_is_not_counted_is_told_of_all_seeds(config, tmp_path):
    def kept():
        lines = Path("README.md").read_text().splitlines()
        return {w[1].strip(): w[-2].strip() for w in (t.split("|") for t in lines if "|" in t)}

    compare(config, only=["teacher", "match"], tasks=["mood"])
    assert kept()["match"] == ""  # not every task that counts
    text = COMPARISON.replace('name = "food"\nheading', 'name = "food"\ncounted = false\nheading')
    assert text != COMPARISON
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    config = load_comparison(tmp_path / "c.toml")
    compare(config, only=["teacher", "match"], tasks=["mood"])  # nothing is left to do
    assert "±" in kept()["match"] and kept()["teacher"] == "100.0"
    assert [t.name for t in tasks_of(config, config.students[1], 2)] == ["food", "mood"]
