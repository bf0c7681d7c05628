"""Commands about packages, wrong usage and the outside world."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rubert_lite import __version__
from rubert_lite.cli import main

from .conftest import HIDDEN, PIECES

ROOT = Path(__file__).parents[2]


def test_models_info_verify(
    make_package: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = make_package("home/tiny-mood", labels=("да", "нет"))
    broken = make_package("home/broken")
    (broken / "manifest.json").write_text("{")
    monkeypatch.setenv("RUBERT_LITE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("rubert_lite.locate.shipped_folder", lambda: tmp_path / "none")
    assert main(["models"]) == 0
    out, err = capsys.readouterr()
    assert out == "tiny-mood\t1\t0.0 MB\tда, нет\n"
    assert "broken" in err
    assert main(["info", "tiny-mood"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == ["да", "нет"]
    assert main(["verify", "tiny-mood"]) == 0
    assert "2 files" in capsys.readouterr().out
    (directory / "tokenizer.json").write_text("{}")
    assert main(["verify", "tiny-mood"]) == 1
    assert "tokenizer.json: 2 bytes, expected" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["head", "rows"])
def test_verify_finds_what_computes_no_numbers(
    make_package: Any, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    shape = {"head": (HIDDEN, 2), "rows": (len(PIECES), HIDDEN)}[part]
    directory = make_package(labels=("да", "нет"), **{part: np.full(shape, np.nan)})
    assert main(["verify", str(directory)]) == 1
    found = {"head": "the logits of its classification head are", "rows": "its vectors are"}[part]
    assert f"{directory}: {found} not finite" in capsys.readouterr().err


def test_info_escapes_what_would_steer_a_terminal(
    make_package: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = make_package()
    path = directory / "manifest.json"
    values = json.loads(path.read_text("utf-8"))
    values["provenance"] = {"note": "\x9b31m \x7f \u202eда \U000e0001"}
    path.write_text(json.dumps(values), "utf-8")
    assert main(["info", str(directory)]) == 0
    out = capsys.readouterr().out
    assert r'"\u009b31m \u007f \u202eда \udb40\udc01"' in out
    assert json.loads(out)["provenance"] == values["provenance"]


def test_verify_finds_a_graph_that_does_not_belong(
    make_package: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = make_package(metadata={"rubert_lite.vocab_size": "7"})
    assert main(["verify", str(directory)]) == 1
    assert "do not belong together" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [[], ["nonsense"], ["encode"], ["encode", "x", "--lanes", "many"], ["models", "x"]]
)
def test_wrong_usage_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: rubert-lite" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"rubert-lite {__version__}\n"


def test_output_is_utf8_in_any_locale(classifier_package: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rubert_lite.cli", "classify", str(classifier_package)],
        input="мир".encode(),
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert "добро" in json.loads(done.stdout.decode("utf-8"))["scores"]
