"""The command as a process: pipes, closed streams, a full disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


TEXTS = ["Привет, мир", "", "добрый день"]


# Python complains at exit only of what stands in a buffer.
BUFFERED = os.environ | {"PYTHONUNBUFFERED": ""}


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n", "utf-8")
    return path


def test_as_a_process_in_a_pipe(shared_package: Path, tmp_path: Path) -> None:
    """Whoever closes the pipe early gets no complaint; a locale without UTF-8 does no harm."""
    many = tmp_path / "many.txt"
    many.write_text("мир\n" * 20_000, "utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "rubert_lite.cli", "encode", str(shared_package), str(many)],
        cwd=ROOT,
        env=BUFFERED | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        assert json.loads(process.stdout.readline())["vector"]
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def command_line(*words: str, redirected: str) -> subprocess.CompletedProcess[str]:
    line = f'exec "{sys.executable}" -m rubert_lite.cli "$@" {redirected}'
    return subprocess.run(
        ["sh", "-c", line, "sh", *words],
        cwd=ROOT,
        env=BUFFERED,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk to try")
@pytest.mark.parametrize("command", ["encode", "info", "verify"])
def test_full_disk_behind_the_output_is_one_line(
    shared_package: Path, lines: Path, command: str
) -> None:
    words = [command, str(shared_package), *([str(lines)] if command == "encode" else [])]
    done = command_line(*words, redirected="> /dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "rubert-lite: [Errno 28] No space left on device"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("redirected", "message"), [("<&-", "standard input is closed"), (">&-", "output is closed")]
)
def test_closed_streams_are_told(shared_package: Path, redirected: str, message: str) -> None:
    done = command_line("encode", str(shared_package), redirected=redirected)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_at_the_other_end_of_the_pipe(shared_package: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "rubert_lite.cli", "verify", str(shared_package)],
            cwd=ROOT,
            env=BUFFERED,
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
