"""Loading a model sends nothing, leaves nothing in the home, and survives a fork to its end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rubert_lite.quiet import OPT_OUT

SCRIPT = """
import os, sys, time
from rubert_lite import load
model = load(sys.argv[1])
model.encode(["мир"])
print(os.environ.get("ORT_DISABLE_TELEMETRY"), len(os.listdir("/proc/self/task")), flush=True)
child = os.fork()
if not child:
    model.encode(["мир"])
    sys.exit(0)  # as a server that forks does, not os._exit as multiprocessing
for _ in range(200):
    process, status = os.waitpid(child, os.WNOHANG)
    if process:
        break
    time.sleep(0.05)
else:
    os.kill(child, 9)
    status = "hangs"
print(status)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("given", [None, "1"])
def test_loading_keeps_to_itself(shared_package: Path, tmp_path: Path, given: str | None) -> None:
    # Where it thinks that it is tested, onnxruntime is quiet anyway.
    plain = {k: os.environ[k] for k in ("PATH", "PYTHONPATH") if k in os.environ}
    environment = plain | {"HOME": str(tmp_path)} | ({OPT_OUT: given} if given else {})
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(shared_package)]
    found = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert found.returncode == 0, found.stderr
    first, status = found.stdout.splitlines()
    assert first.split()[0] == str(given) and status == "0"
    assert [*tmp_path.rglob("*")] == []
