import os
import time
from functools import partial
from pathlib import Path

import pytest

from rubert_lite.errors import ConfigError
from train.compared import load_comparison, rows_of
from train.gpu import COMPARISON, programme
from train.graph import Job, run_jobs


def note(place: Path, name: str) -> None:
    with (place / "order").open("a") as file:
        file.write(f"{name}\n")


def fail() -> None:
    print("seen in the log")
    raise ValueError("no")


def test_jobs_wait_for_those_before_them(tmp_path):
    jobs = {
        "last": Job(partial(note, tmp_path, "last"), after=("first", "second")),
        "second": Job(partial(note, tmp_path, "second"), after=("first",)),
        "first": Job(partial(note, tmp_path, "first")),
    }
    assert set(run_jobs(jobs, tmp_path / "logs", at_once=1).values()) == {"done"}
    assert (tmp_path / "order").read_text().split() == ["first", "second", "last"]


def test_what_follows_a_failure_is_not_begun(tmp_path):
    jobs = {
        "a/bad": Job(fail),
        "after": Job(partial(note, tmp_path, "after"), after=("a/bad",)),
        "later": Job(partial(note, tmp_path, "later"), after=("after",)),
        "other": Job(partial(note, tmp_path, "other")),
    }
    found = run_jobs(jobs, tmp_path / "logs", at_once=1)
    assert found == {"a/bad": "failed", "after": "not begun", "later": "not begun", "other": "done"}
    assert (tmp_path / "order").read_text().split() == ["other"]
    log = (tmp_path / "logs" / "a-bad.log").read_text()
    assert "seen in the log" in log and "ValueError: no" in log


def wait_for(place: Path, mine: str, other: str) -> None:
    """Succeed only where both run at the same time."""
    (place / mine).touch()
    end = time.monotonic() + 20
    while not (place / other).exists():
        if time.monotonic() > end:
            raise TimeoutError(other)
        time.sleep(0.01)


def test_counted_jobs_share_their_places_and_others_do_not(tmp_path):
    jobs = {
        "a": Job(partial(wait_for, tmp_path, "a", "b"), counted=True),
        "b": Job(partial(wait_for, tmp_path, "b", "a"), counted=True),
    }
    assert set(run_jobs(jobs, tmp_path / "logs", at_once=2).values()) == {"done"}
    alone = {"c": Job(partial(wait_for, tmp_path, "c", "d"), counted=True)}
    alone["d"] = Job(partial(wait_for, tmp_path, "d", "c"), counted=True)
    found = run_jobs(alone, tmp_path / "logs", at_once=1, seconds=0.5)
    assert found == {"c": "stopped", "d": "not begun"}


def test_a_job_whose_log_cannot_be_written_ends_alone(tmp_path):
    """It must not go on as its parent, which would end what runs beside it."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "talks.log").symlink_to("/dev/full")
    jobs = {
        "waits": Job(partial(wait_for, tmp_path, "a", "b")),
        "talks": Job(partial(print, "half a line", end="")),
        "after": Job((tmp_path / "b").touch, after=("talks",)),
    }
    parent = os.getpid()
    try:
        found = run_jobs(jobs, tmp_path / "logs", at_once=1, seconds=20)
    finally:
        if os.getpid() != parent:  # else two processes would go on with these tests
            os._exit(9)
    assert found == dict.fromkeys(jobs, "done")


def test_an_unknown_name_is_told(tmp_path):
    with pytest.raises(ConfigError, match="a: no job 'b'"):
        run_jobs({"a": Job(fail, after=("b",))}, tmp_path, at_once=1)


def test_jobs_that_wait_for_each_other_are_told(tmp_path):
    jobs = {"a": Job(fail, after=("b",)), "b": Job(fail, after=("a",))}
    with pytest.raises(ConfigError, match="wait for each other"):
        run_jobs(jobs, tmp_path, at_once=1)


def test_the_programme_of_the_gpu_is_whole(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    jobs = programme(2)
    done: set[str] = set()
    while len(done) < len(jobs):  # else jobs wait for each other
        ready = {n for n, j in jobs.items() if n not in done and done.issuperset(j.after)}
        assert ready
        done |= ready
    config = load_comparison(Path(COMPARISON))
    rows = {f"{s.name}, seed {seed}" for s, seed in rows_of(config) if s is not config.students[0]}
    assert rows < set(jobs)
    assert all(jobs[row].counted for row in rows)
