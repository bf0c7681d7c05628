"""`train/remake`: the shipped models' last steps, in the order in which they need each other."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUB = """#!/bin/sh
echo "$@" >> calls.txt
while [ $# -gt 0 ]; do
    [ "$1" = --to ] && mkdir -p "$2" && touch "$2/manifest.json"
    shift
done
true
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository of two releases, with programs that note what they are asked."""
    shutil.copytree(ROOT / "train/configs", tmp_path / "train/configs")
    shutil.copy(ROOT / "train/remake", tmp_path / "train/remake")
    (tmp_path / "LICENSE").touch()
    for name in ("rubert-lite", "python"):
        (tmp_path / name).write_text(STUB)
        (tmp_path / name).chmod(0o755)
    former = re.findall(r"former=(\w{64})", (ROOT / "train/remake").read_text())
    assert len(set(former)) == 2
    for release in (*former, "of today"):
        for model in ("distil-16k", "distil-5k"):
            folder = tmp_path / "rubert_lite/models" / model
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "manifest.json").write_text(f"{model} {release}")
        commit(tmp_path)
    for run_name in ("distil-16k-english", "distil-5k-remainder"):
        (tmp_path / "runs" / run_name / "06-toxicity").mkdir(parents=True)
    texts = tmp_path / "runs/corpora-long/valid.txt"
    texts.parent.mkdir()
    texts.write_text("Привет\n")
    return tmp_path


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={"BIN": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def commit(folder: Path) -> None:
    for command in (["init", "-q"], ["add", "rubert_lite"], ["commit", "-qm", "release"]):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        assert run(folder, "git", *who, *command).returncode == 0


@pytest.mark.parametrize("model", ["distil-16k", "distil-5k"])
def test_steps_follow_from_the_release_before(checkout: Path, model: str) -> None:
    done = run(checkout, "train/remake", model)
    assert done.returncode == 0, done.stderr
    calls = (checkout / "calls.txt").read_text().splitlines()
    exported = [c for c in calls if c.startswith("export")]
    assert exported[0].split()[1].endswith(f"/rubert_lite/models/{model}")
    assert f"--name {model} --variants int4-static" in exported[-1]
    for call in calls:
        if config := re.search(r"--config (\S+)", call):
            first = (ROOT / config[1]).read_text(encoding="utf-8").splitlines()[0]
            stage = call.split()[1]
            assert stage == "corpus" or first.startswith(f"# rubert-lite train {stage} ")
    # A second time the release before is there already.
    (checkout / "calls.txt").unlink()
    shutil.rmtree(checkout / ".git")
    assert run(checkout, "train/remake", model).returncode == 0
    assert "train corpus" in (checkout / "calls.txt").read_text().splitlines()[0]


def test_what_cannot_be_made_is_told(checkout: Path) -> None:
    done = run(checkout, "train/remake", "distil-30k")
    assert done.returncode == 2 and "got 'distil-30k'" in done.stderr
    shutil.rmtree(checkout / ".git")
    commit(checkout)
    done = run(checkout, "train/remake", "distil-16k")
    assert done.returncode == 1 and "fetch the whole history" in done.stderr
    assert not (checkout / "calls.txt").exists()
