"""The command as a process, and clients of it."""

import http.client
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rubert_lite import load


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
