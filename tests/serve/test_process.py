"""The command, as a process: signals, workers, real clients."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import openai
import pytest

from rubert_lite import load
from tests.rubert_lite.conftest import build

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and SO_REUSEPORT of Linux")


@dataclass
class Running:
    process: "subprocess.Popen[str]"
    port: int
    lines: list[dict[str, object]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def said(self, words: str) -> int:
        return sum(words in str(line["message"]) for line in list(self.lines))


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.02)


@contextmanager
def serving(package: Path, *words: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "serve", str(package), "--port", "0", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    running = Running(process, 0)

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            running.lines.append(json.loads(line))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        until(lambda: running.said("listening on") > 0 or process.poll() is not None)
        first = next(str(x["message"]) for x in running.lines if "listening" in str(x["message"]))
        running.port = int(re.findall(r":(\d+)$", first)[0])
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=60)
        reader.join()
        assert process.stderr is not None
        process.stderr.close()


@dataclass
class Load:
    """Clients that ask as fast as they can, on connections that stay open, until told to stop."""

    port: int
    expected: dict[str, list[float]]
    done: int = 0
    failures: list[str] = field(default_factory=list)
    stopping: bool = False

    def ask(self) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            self._ask(connection)

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        texts = list(self.expected)
        while not self.stopping:
            text = texts[self.done % len(texts)]
            try:
                body = json.dumps({"inputs": text})
                connection.request("POST", "/embed", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                [row] = json.loads(answer.read())
                if answer.status != 200 or not np.allclose(row, self.expected[text], atol=1e-6):
                    self.failures.append(f"{answer.status} {row}")
                self.done += 1
                if answer.getheader("connection") == "close":
                    connection.close()
            except ConnectionRefusedError:
                if not self.stopping:
                    self.failures.append("refused")
                return
            except Exception as error:  # whatever it is, an answer was owed
                self.failures.append(repr(error))
                connection.close()


@contextmanager
def load_on(running: Running, package: Path, clients: int = 4) -> Iterator[Load]:
    texts = ["мир", "добрый день", "Привет, мир"]
    rows = load(package).encode(texts).tolist()
    traffic = Load(running.port, dict(zip(texts, rows, strict=True)))
    threads = [threading.Thread(target=traffic.ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: traffic.done > 20)
        yield traffic
    finally:
        traffic.stopping = True
        for thread in threads:
            thread.join()


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


def test_slow_and_half_open_connections_hold_nobody_up(package: Path) -> None:
    with serving(package, "--body-timeout-seconds", "0.5") as running:
        idle = []
        for number in range(200):
            connection = socket.create_connection(("127.0.0.1", running.port))
            if number % 2:
                connection.sendall(
                    b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"
                )
            idle.append(connection)
        with load_on(running, package):
            pass
        idle[1].settimeout(10)
        assert b" 408 " in idle[1].recv(1000)
        for connection in idle:
            connection.close()


def test_connections_without_a_request_end(package: Path) -> None:
    words = ("--keep-alive-seconds", "2", "--body-timeout-seconds", "0.5")
    with serving(package, *words) as running:
        beginnings = {
            "nothing": b"",
            "half a head": b"GET /health HTTP/1.1\r\nhost:",
            "half a second head": b"GET /health HTTP/1.1\r\nhost: x\r\n\r\nGET /hea",
            "endless": b"GET /health HTTP/1.1\r\nhost: x\r\ncookie: ",
        }
        answers = {}
        for name, beginning in beginnings.items():
            with socket.create_connection(("127.0.0.1", running.port)) as connection:
                connection.settimeout(10)
                began = time.monotonic()
                connection.sendall(beginning)
                if name == "endless":
                    time.sleep(0.2)
                    connection.sendall(b"a" * 20_000)
                parts = []
                while part := connection.recv(4096):
                    parts.append(part)
                answers[name] = b"".join(parts)[9:12].decode()
                least, most = {"nothing": (1.5, 8), "endless": (0, 8)}.get(name, (0.3, 8))
                assert least < time.monotonic() - began < most, name
        assert answers == {
            "nothing": "",
            "half a head": "",
            "half a second head": "200",
            "endless": "400",
        }


def test_a_slow_answer_is_not_taken_for_a_slow_head(package: Path) -> None:
    """The head of a second request stands half in the line while the first is computed."""
    body = json.dumps({"inputs": ["мир дом " * 30 + str(i) for i in range(1500)]}).encode()
    head = b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    words = ("--body-timeout-seconds", "0.05", "--max-queue-seconds", "60", "--max-queue-tokens")
    with (
        serving(package, *words, "1000000") as running,
        socket.create_connection(("127.0.0.1", running.port)) as connection,
    ):
        connection.settimeout(30)
        connection.sendall(head + body + b"GET /hea")
        assert b" 200 " in connection.recv(100)


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
