"""Connections that are slow, idle or half open."""

import json
import socket
import sys
import time
from pathlib import Path

import pytest

from .running import load_on, serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and SO_REUSEPORT of Linux")


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
