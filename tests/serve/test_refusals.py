"""The command, where it cannot start: told in a line, with a status."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .running import serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and SO_REUSEPORT of Linux")


def test_a_port_that_is_taken_and_wrong_settings_are_told(package: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "serve", str(package), "--port"]
        found = subprocess.run([*command, port], capture_output=True, text=True)
        assert found.returncode == 1 and "choose another --port" in found.stderr
        wrong = subprocess.run([*command, "99999"], capture_output=True, text=True)
        assert wrong.returncode == 2 and "port" in wrong.stderr
        for host, status, said in (
            ("nowhere.invalid", 1, "expected an address of this machine as --host"),
            ("", 2, "host"),
        ):
            host_command = [*command, "0", "--host", host]
            strange = subprocess.run(host_command, capture_output=True, text=True)
            assert strange.returncode == status and said in strange.stderr
        endless = [*command, "0", "--shutdown-seconds", "inf"]
        assert subprocess.run(endless, capture_output=True).returncode == 2
        assert "Traceback" not in found.stderr + wrong.stderr


def test_two_servers_of_several_workers_do_not_share_a_port(package: Path) -> None:
    with serving(package, "--workers", "2") as running:
        command = [sys.executable, "-m", "serve", str(package), "--workers", "2", "--port"]
        found = subprocess.run([*command, str(running.port)], capture_output=True, text=True)
        assert found.returncode == 1 and "choose another --port" in found.stderr


def test_a_missing_or_broken_model_is_told(package: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(package, broken)
    (broken / "fast.fp32.onnx").write_bytes(b"no graph")
    for model in (str(broken), "nowhere"):
        command = [sys.executable, "-m", "serve", model, "--port", "0"]
        found = subprocess.run(command, capture_output=True, text=True)
        assert found.returncode == 1 and "rubert-lite serve: " in found.stderr
        assert "Traceback" not in found.stderr


def test_workers_that_can_never_start_end_the_server(package: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(package, broken)
    (broken / "fast.fp32.onnx").write_bytes(b"no graph")
    command = [sys.executable, "-m", "serve", str(broken), "--port", "0", "--workers", "2"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert found.returncode == 1 and "no worker could start: giving up" in found.stderr
    assert "fast.fp32.onnx" in found.stderr and "Traceback" not in found.stderr
