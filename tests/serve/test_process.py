"""The command, as a process: signals, workers, real clients."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import openai
import pytest

from rubert_lite import load
from tests.rubert_lite.conftest import build

from .running import Running, load_on, serving, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and SO_REUSEPORT of Linux")


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_official_openai_client(package: Path) -> None:
    texts = ["Привет, мир", "добрый день"]
    with serving(package, "--api-keys", "k") as running:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="k", max_retries=0)
        for asked in ({}, {"encoding_format": "float"}, {"dimensions": 4}):
            found = client.embeddings.create(model="tiny", input=texts, **asked)  # type: ignore[arg-type]
            rows = np.array([d.embedding for d in found.data], dtype=np.float32)
            width = asked.get("dimensions")
            expected = load(package).encode(texts, truncate_dim=width)  # type: ignore[arg-type]
            assert np.array_equal(rows, expected)
        assert [m.id for m in client.models.list().data] == ["tiny"]
        with pytest.raises(openai.BadRequestError, match="token ids"):
            client.embeddings.create(model="tiny", input=[[1, 2]])
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model="other", input="мир")
        wrong = openai.OpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            wrong.models.list()
        client.close()
        wrong.close()


def test_sigterm_under_load_answers_everyone(package: Path) -> None:
    with (
        serving(package, "--drain-seconds", "0.5") as running,
        load_on(running, package) as traffic,
    ):
        running.process.send_signal(signal.SIGTERM)
        until(lambda: running.said("draining") > 0)
        assert get(f"{running.url}/health/ready")[0] == 503
        before = traffic.done
        until(lambda: traffic.done > before)
        # A balancer that sees "unready" stops sending; these clients are told to stop.
        traffic.stopping = True
        assert running.process.wait(timeout=30) == 0
    assert traffic.failures == []


def test_sighup_under_load_swaps_the_model_without_a_failure(tmp_path: Path) -> None:
    package = build(tmp_path / "tiny")
    with serving(package) as running, load_on(running, package) as traffic:
        for number in range(1, 4):
            running.process.send_signal(signal.SIGHUP)
            until(lambda n=number: running.said("reloaded") == n)  # type: ignore[misc]
        (package / "tokenizer.json").write_text("{}")  # no longer what the manifest says
        running.process.send_signal(signal.SIGHUP)
        until(lambda: running.said("reload refused") == 1)
        before = traffic.done
        until(lambda: traffic.done > before + 20)
        assert 'rubert_lite_reloads_total{result="refused"} 1.0' in get(f"{running.url}/metrics")[1]
    assert traffic.failures == []


def test_workers_share_a_port_and_one_that_is_killed_is_replaced(package: Path) -> None:
    with serving(package, "--workers", "2", "--drain-seconds", "0.1") as running:
        until(lambda: running.said("listening on") == 2)
        pids = {int(str(x["pid"])) for x in running.lines if "listening" in str(x["message"])}
        assert len(pids) == 2
        for _ in range(40):  # new connections: the kernel spreads them
            assert get(f"{running.url}/health")[0] == 200
        os.kill(pids.pop(), signal.SIGKILL)
        until(lambda: running.said("starting another") == 1 and running.said("listening on") == 3)
        with load_on(running, package) as traffic:
            pass
        assert traffic.failures == []
        text = get(f"{running.url}/metrics")[1]
        assert float(re.findall(r"(?m)^rubert_lite_texts_total (\S+)", text)[0]) >= traffic.done
    assert running.process.returncode == 0


def test_workers_end_with_their_parent(package: Path) -> None:
    with serving(package, "--workers", "2", "--drain-seconds", "0.1") as running:
        until(lambda: running.said("listening on") == 2)
        pids = {int(str(x["pid"])) for x in running.lines if "listening" in str(x["message"])}
        running.process.kill()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_sighup_while_it_starts_is_answered_later(package: Path) -> None:
    with serving(package, "--workers", "2", "--drain-seconds", "0.1") as running:
        pids = set()

        def reloaded(count: int) -> bool:
            pids.update(int(str(x["pid"])) for x in running.lines if "pid" in x)
            return running.said("reloaded") >= count

        until(lambda: running.said("listening on") == 2)
        reloaded(0)
        os.kill(next(p for p in pids if p != running.process.pid), signal.SIGKILL)
        until(lambda: running.said("starting another") == 1)
        running.process.send_signal(signal.SIGHUP)  # one worker has only just begun
        until(lambda: reloaded(2))
        assert running.said("starting another") == 1


def test_the_queue_of_a_dead_worker_is_forgotten(package: Path) -> None:
    with serving(package, "--workers", "2", "--drain-seconds", "0.1") as running:
        until(lambda: running.said("listening on") == 2)
        before = metrics_of(running)
        assert len(before) == 2
        os.kill(before.pop(), signal.SIGKILL)
        until(lambda: running.said("listening on") == 3)
        assert metrics_of(running) > before and len(metrics_of(running)) == 2


def metrics_of(running: Running) -> set[int]:
    """Return the processes that have a gauge of the queue."""
    environment = Path(f"/proc/{worker_of(running)}/environ").read_bytes().split(b"\0")
    [folder] = [e.partition(b"=")[2] for e in environment if e.startswith(b"PROMETHEUS_MULTI")]
    return {int(p.stem.split("_")[-1]) for p in Path(folder.decode()).glob("gauge_livesum_*")}


def worker_of(running: Running) -> int:
    lines = [x for x in running.lines if "listening" in str(x["message"])]
    return int(str(lines[-1]["pid"]))


def test_a_port_file_that_cannot_be_written_ends_all_workers(package: Path) -> None:
    words = ("--workers", "2", "--port-file", "/nowhere/port", "--port", "0")
    command = [sys.executable, "-m", "serve", str(package), *words]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert found.returncode == 1 and "Traceback" not in found.stderr
    assert "/nowhere/port: the port cannot be written (No such file or directory)" in found.stderr


def test_settings_come_from_flags_then_environment(package: Path, monkeypatch) -> None:
    from serve.settings import Settings

    monkeypatch.setenv("RUBERT_LITE_MAX_ITEMS", "7")
    monkeypatch.setenv("RUBERT_LITE_API_KEYS", "a,b")
    settings = Settings(max_items=9)
    assert settings.max_items == 9 and Settings().max_items == 7
    assert "a,b" not in repr(settings)


def test_an_open_inference_client_of_triton(package: Path) -> None:
    """In a process of its own: tritonclient brings gevent along."""
    script = """
import sys
import numpy as np
import tritonclient.http as http
client = http.InferenceServerClient(sys.argv[1])
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("tiny")
assert client.get_model_metadata("tiny")["inputs"][0]["datatype"] == "BYTES"
texts = np.array(["Привет, мир", "день"], dtype=object)
for binary in (True, False):
    tensor = http.InferInput("text", [2], "BYTES")
    tensor.set_data_from_numpy(texts, binary_data=binary)
    wanted = http.InferRequestedOutput("sentence_embedding", binary_data=binary)
    found = client.infer("tiny", [tensor], outputs=[wanted])
    print(found.as_numpy("sentence_embedding").astype(float).tolist())
"""
    with serving(package) as running:
        command = [sys.executable, "-c", script, f"127.0.0.1:{running.port}"]
        found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    expected = load(package).encode(["Привет, мир", "день"])
    for line in found.stdout.splitlines():
        assert np.allclose(json.loads(line), expected, atol=1e-6)
    assert len(found.stdout.splitlines()) == 2
