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


H2C = (
    b"connection: Upgrade, HTTP2-Settings%s\r\nupgrade: h2c\r\n"
    b"http2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
)


def _all(connection: socket.socket) -> bytes:
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except TimeoutError:
        pass
    return b"".join(parts)


def test_offers_of_another_protocol_are_declined(package: Path) -> None:
    """Java's client makes one with every request, and sends the body behind it."""
    body = json.dumps({"inputs": "мир"}).encode()
    smuggled = b"GET /info HTTP/1.1\r\nhost: x\r\n\r\n"
    post = b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n" % len(body)
    with serving(package) as running:

        def send(*parts: bytes) -> bytes:
            with socket.create_connection(("127.0.0.1", running.port)) as connection:
                connection.settimeout(1)
                for part in parts:
                    connection.sendall(part)
                    time.sleep(0.05)
                return _all(connection)

        plain = post + H2C % b"" + b"\r\n"
        close = post + H2C % b", close" + b"\r\n"
        row = send(post + b"\r\n" + body).rpartition(b"\r\n\r\n")[2]
        assert row.startswith(b"[[")
        for parts in ([plain + body], [plain, body], [plain[:80], plain[80:], body[:5], body[5:]]):
            assert send(*parts).endswith(row), parts
        twice = send((plain + body) * 40)
        assert twice.count(b" 200 ") == 40 == twice.count(row)
        assert b"connection: close" in send(close, body)
        length = b"content-length: %d" % len(smuggled)
        odd = plain.replace(b"content-length: %d" % len(body), length)
        assert send(odd, smuggled).count(b"HTTP/1.1 ") == 1
        chunked = plain.replace(b"content-length: %d" % len(body), b"transfer-encoding: chunked")
        assert send(chunked, b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)).endswith(row)
        socketed = H2C.replace(b"h2c", b"websocket") % b""
        assert b" 405 " in send(b"GET /embed HTTP/1.1\r\nhost: x\r\n" + socketed + b"\r\n")
        assert b" 400 " in send(b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n")
        assert running.said("failed") == 0


def test_who_reads_no_answer_is_given_up(package: Path) -> None:
    body = json.dumps({"inputs": ["а б в г д " * 12] * 1000}).encode()  # an answer of 4 MB
    request = b"POST /tokenize HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    with serving(package, "--keep-alive-seconds", "1") as running:

        def ask() -> socket.socket:
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", running.port))
            connection.settimeout(10)
            connection.sendall(request + body)
            return connection

        def read(connection: socket.socket, pause: float) -> tuple[int, int]:
            data = b""
            try:
                while part := connection.recv(400_000):
                    data += part
                    time.sleep(pause)
            except ConnectionResetError:
                pass
            head, _, rest = data.partition(b"\r\n\r\n")
            return len(rest), int(head.lower().partition(b"content-length: ")[2].split()[0])

        with ask() as never, ask() as slowly:
            began = time.monotonic()
            found, whole = read(slowly, 0.004)  # for longer than an idle connection is kept
            assert found == whole > 3_000_000 and time.monotonic() - began > 2
            time.sleep(1)
            found, whole = read(never, 0)
            assert found < whole


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
