import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rubert_lite.errors import RubertLiteError
from train import parallel
from train.parallel import as_command, locked, run_rows
from train.stage import Stage, run_stage

SLOW = """
import os, sys, time
open(f"{sys.argv[-1]}.pid", "w").write(str(os.getpid()))
time.sleep(300)
"""
PARENT = """
import sys
from train.parallel import run_rows
run_rows([sys.executable, "slow.py"], {"first": ["a"], "second": ["b"]}, jobs=2)
"""


def test_another_process_finds_the_installed_parts_from_a_checkout(monkeypatch):
    assert as_command("export") == [sys.executable, "-m", "export"]
    monkeypatch.setattr(parallel, "__package__", "rubert_lite.train")
    assert as_command("export") == [sys.executable, "-P", "-m", "rubert_lite.export"]


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.02)


def test_rows_end_with_the_process_that_began_them(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    )
    files = [tmp_path / "a.pid", tmp_path / "b.pid"]
    wait_for(lambda: all(f.exists() and f.read_text() for f in files))
    children = [int(f.read_text()) for f in files]
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(timeout=60) != 0
    wait_for(lambda: not any(map(alive, children)))


def test_threads_are_shared_out_and_failures_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    code = (
        "import os, sys; row = sys.argv[-1]; open(row, 'w').write(os.environ['OMP_NUM_THREADS']);"
        " sys.exit(row == 'bad')"
    )
    with pytest.raises(RubertLiteError, match="these students failed: bad$"):
        run_rows([sys.executable, "-c", code], {n: [n] for n in ("good", "bad", "more")}, jobs=2)
    assert {(tmp_path / n).read_text() for n in ("good", "bad", "more")} == {"4"}


def test_a_locked_file_is_changed_by_one_at_a_time(tmp_path):
    (tmp_path / "n").write_text("0")
    code = (
        "import sys, time; from pathlib import Path; from train.parallel import locked\n"
        "path = Path(sys.argv[1])\n"
        "for _ in range(20):\n"
        "    with locked(path):\n"
        "        n = int(path.read_text()); time.sleep(0.001); path.write_text(str(n + 1))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, "-c", code, str(tmp_path / "n")]
    both = [subprocess.Popen(words, env=environment) for _ in range(2)]
    assert [p.wait(timeout=60) for p in both] == [0, 0]
    with locked(tmp_path / "n") as mine:
        assert mine and (tmp_path / "n").read_text() == "40"
        with locked(tmp_path / "n", wait=False) as twice:
            assert not twice
    with locked(tmp_path / "n", wait=False) as mine:
        assert mine


def test_a_stage_is_made_by_one_process_at_a_time(tmp_path):
    """The second waits and finds it made; both would have written into one folder."""
    began, may_end, made = threading.Event(), threading.Event(), []

    def work(folder):
        made.append(folder)
        began.set()
        assert may_end.wait(60)
        (folder / "text").write_text("whole")

    stage = Stage(tmp_path / "04-student", {"size": 1}, {}, resumable=True)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run_stage, stage, work)
        assert began.wait(60)
        second = pool.submit(run_stage, stage, work)
        with pytest.raises(TimeoutError):
            second.result(timeout=0.2)
        may_end.set()
        assert first.result(60) and not second.result(60)
    assert len(made) == 1 and (stage.folder / "text").read_text() == "whole"
