"""The wheel, in an environment of its own, outside the checkout."""

import json
import os
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)], check=True
    )
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_tree_and_one_top_level_name(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if ".dist-info/" not in n}
    expected = set()
    tracked = subprocess.run(
        ["git", "ls-files", "rubert_lite", "train", "export", "serve"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for name in tracked:
        if (
            name.endswith((".py", "py.typed", "page.html"))
            or "/models/" in name
            or "/configs/" in name
        ):
            inside = name if name.startswith("rubert_lite/") else f"rubert_lite/{name}"
            expected.add(inside)
    assert names == expected
    assert {n.split("/")[0] for n in names} == {"rubert_lite"}


def test_it_runs_outside_the_checkout(wheel, tmp_path):
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = str(venv / "bin" / "python")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}

    def run(
        *arguments: str, stdin: str = "", cwd: Path = tmp_path
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments, cwd=cwd, input=stdin, capture_output=True, text=True, env=clean
        )

    def install(*what: str) -> None:
        constraints = str(ROOT / "constraints.txt")
        done = run(python, "-m", "pip", "install", "-q", "-c", constraints, *what)
        assert done.returncode == 0, done.stderr

    install(str(wheel))
    code = "from rubert_lite import load; print(load('distil-16k').encode(['Привет, мир']).shape)"
    missing = run(python, "-c", code)
    assert missing.returncode != 0 and "pip install -e '.[cpu]'" in missing.stderr
    install(f"{wheel}[cpu]")
    assert run(python, "-c", code).stdout == "(1, 384)\n"
    tool = str(venv / "bin" / "rubert-lite")
    encoded = run(tool, "encode", "distil-16k", "-", stdin="Привет, мир\nДобрый день\n")
    assert encoded.returncode == 0, encoded.stderr
    assert len(encoded.stdout.splitlines()) == 2
    train = run(tool, "train", "all", "--config", "x.toml")
    assert train.returncode == 1 and ".[train]" in train.stderr
    serve = run(tool, "serve", "distil-16k")
    assert serve.returncode == 1 and ".[serve]" in serve.stderr
    install(f"{wheel}[cpu,serve]")
    assert "torch" not in run(python, "-m", "pip", "list").stdout
    # As train.parallel starts other processes: a checkout that stands there is not taken for it.
    inside = run(python, "-P", "-m", "rubert_lite.serve", "--help", cwd=ROOT)
    assert inside.returncode == 0, inside.stderr
    _serve_and_ask(tool, tmp_path, clean)


def _serve_and_ask(tool: str, folder: Path, env: dict[str, str]) -> None:
    """Two workers, started by spawn from the installed package; the page is among its files."""
    port_file = folder / "port"
    words = [tool, "serve", "--port", "0", "--workers", "2", "--drain-seconds", "0"]
    process = subprocess.Popen([*words, "--port-file", str(port_file)], cwd=folder, env=env)
    try:
        deadline = time.monotonic() + 60
        while not port_file.exists() or not port_file.read_text():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        url = f"http://127.0.0.1:{port_file.read_text().strip()}"
        with urllib.request.urlopen(f"{url}/") as page:
            assert "<canvas" in page.read().decode()
        body = json.dumps({"input": ["Привет, мир"]}).encode()
        request = urllib.request.Request(
            f"{url}/v1/embeddings", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            assert len(json.load(answer)["data"][0]["embedding"]) == 384
    finally:
        process.terminate()
    assert process.wait(timeout=60) == 0
