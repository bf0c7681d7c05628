"""The straight line, end to end, through the commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def command(
    *arguments: str, module: str, cwd: Path, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """A folder in which the toy line and its export were run."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "train").mkdir()
    (folder / "train" / "configs").symlink_to(ROOT / "train" / "configs")
    config = "train/configs/toy.toml"
    done = command("all", "--config", config, module="train", cwd=folder)
    assert done.returncode == 0, done.stderr
    done = command(
        "runs/toy/06-toy-reviews", "--to", "package", "--variants", "int8,fp32",
        module="export", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_from_text_to_vectors_and_classes(toy):
    from rubert_lite import load

    model = load(toy / "package")
    vectors = model.encode(["Привет, мир", "Мой брат купил хлеб и молоко."])
    assert vectors.shape == (2, 64)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)
    path = ROOT / "train" / "configs" / "toy-reviews-dev.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = model.classify([r["text"] for r in rows])
    right = sum(p.label == r["label"] for p, r in zip(found, rows, strict=True))
    assert right / len(rows) > 0.9
    provenance = model.package.manifest.provenance
    assert provenance["corpora"][0] == {"name": "toy", "license": "Apache-2.0", "texts": 506}


@pytest.mark.slow
def test_losses_fall_and_are_drawn(toy):
    for run in ("toy-teacher", "toy"):
        folder = toy / "runs" / run / "04-student"
        records = [json.loads(r) for r in (folder / "metrics.jsonl").read_text().splitlines()]
        losses = [r["loss"] for r in records if "loss" in r]
        assert np.mean(losses[-20:]) < 0.75 * np.mean(losses[:20])
        assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_second_run_has_nothing_to_do_and_changes_are_told(toy):
    config = "train/configs/toy.toml"
    again = command("all", "--config", config, module="train", cwd=toy)
    assert again.returncode == 0 and "made in" not in again.stderr
    other = command("all", "--config", config, "--set", "distil.kl=1.0", module="train", cwd=toy)
    assert other.returncode == 1
    assert "settings distil: made with" in other.stderr and "--force" in other.stderr
    assert "Traceback" not in other.stderr


def test_a_configuration_is_checked_without_running(tmp_path):
    (tmp_path / "bad.toml").write_text('run = "x"\n[corpus]\nsources = []\n[distil]\nstep = 1\n')
    done = command("all", "--config", "bad.toml", "--check", module="train", cwd=tmp_path)
    assert done.returncode == 1
    assert "did you mean 'steps'?" in done.stderr and "corpus.sources" in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "bad.toml"]
