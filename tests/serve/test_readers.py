"""Long texts, which threads read: bounds, time, fairness, and clients that leave."""

import asyncio
import json
import threading
import time

import pytest

from rubert_lite import Model
from serve.faults import Overloaded, Unavailable
from serve.readers import Readers

from .asking import ask
from .lane import until

LONG = "добрый день " * 500  # 6,000 characters


class Gated:
    """A method of the model that goes on when it is let, and notes that it was begun."""

    def __init__(self, real):
        self.real, self.begun, self.let = real, [], threading.Semaphore(0)

    def __get__(self, model, kind):
        def call(*arguments, **options):
            self.begun.append(arguments)
            self.let.acquire()
            return self.real(model, *arguments, **options)

        return call


@pytest.fixture
def gated(monkeypatch):
    """Return a function that holds calls of a method of Model back; at the end, all are let."""
    held = []

    def hold(name):
        held.append(Gated(getattr(Model, name)))
        monkeypatch.setattr(Model, name, held[-1])
        return held[-1]

    yield hold
    for one in held:
        one.let.release(1000)


def test_what_clients_that_left_sent_is_not_read(opened, gated):
    app, spans = opened(lanes=2, timeout_seconds=10).app, gated("spans")

    async def run():
        left = asyncio.Event()
        asked = [ask(app, "/tokenize", {"inputs": [LONG] * 5}, left) for _ in range(10)]
        tasks = [asyncio.ensure_future(one) for one in asked]
        await until(lambda: len(spans.begun) >= 2)
        left.set()
        await asyncio.gather(*tasks)
        spans.let.release(1000)
        return await ask(app, "/embed", {"inputs": LONG})

    assert asyncio.run(run())[0] == 200
    assert len(spans.begun) == 2  # a text in each thread, of 50


@pytest.mark.parametrize(("path", "method"), [("/tokenize", "spans"), ("/embed", "read")])
def test_reading_that_takes_too_long_is_a_503(opened, gated, path, method):
    app, held = opened(timeout_seconds=0.3).app, gated(method)

    async def run():
        asyncio.get_running_loop().call_later(3, held.let.release, 1000)
        return await ask(app, path, {"inputs": LONG})

    status, body = asyncio.run(run())
    assert status == 503 and "no answer within 0.3 s" in json.loads(body)["error"]


def pause(monkeypatch, *methods):
    for name in methods:
        real = getattr(Model, name)

        def slowly(*arguments, real=real, **options):
            time.sleep(0.6)
            return real(*arguments, **options)

        monkeypatch.setattr(Model, name, slowly)


TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["мир"]}


@pytest.mark.parametrize(
    ("path", "body", "slow"),
    [
        ("/embed", {"inputs": LONG}, ("read", "compute")),
        (
            "/v2/models/tiny/infer",
            {"inputs": [TENSOR], "outputs": [{"name": "pooled"}, {"name": "logits"}]},
            ("compute",),
        ),
    ],
)
def test_a_request_has_one_time_for_all_that_it_asks(opened, monkeypatch, path, body, slow):
    app = opened(timeout_seconds=1.0).app
    pause(monkeypatch, *slow)
    status, told = asyncio.run(ask(app, path, body))
    assert status == 503 and "no answer within 1 s" in json.loads(told)["error"]


def test_a_full_line_of_long_texts_takes_no_more(opened, gated):
    app, spans = opened(lanes=2, max_queue_tokens=1024, max_queue_seconds=0.001).app, gated("spans")

    async def run():
        tasks = []
        try:
            for begun in (1, 2, 2):  # two threads, and one that waits
                tasks.append(asyncio.ensure_future(ask(app, "/tokenize", {"inputs": LONG})))
                await until(lambda n=begun: len(spans.begun) == n)
            refused = [
                await asyncio.wait_for(ask(app, path, body), 5)
                for path, body in (
                    ("/tokenize", {"inputs": LONG}),
                    ("/tokenize", b"{no json"),  # before it is read
                    ("/embed", {"inputs": LONG}),
                )
            ]
            small = await asyncio.wait_for(ask(app, "/embed", {"inputs": "мир"}), 5)
        finally:
            spans.let.release(1000)
        return refused, small, await asyncio.gather(*tasks)

    refused, small, done = asyncio.run(run())
    for status, body in refused:
        assert status == 429 and b"6000 characters are waiting" in body
    assert small[0] == 200 and [status for status, _ in done] == [200] * 3


@pytest.mark.parametrize("path", ["/embed", "/tag"])
def test_long_requests_are_read_in_parts_and_answered_as_one(opened, monkeypatch, path, tmp_path):
    from rubert_lite import load
    from serve import readers, service
    from tests.rubert_lite.conftest import build_tagger

    model = load(build_tagger(tmp_path / "tiny"), lanes=1)
    texts = ["мир", "", "добрый день и мир " * 9, "а", "б", "вот добрый день " * 20]
    client = opened(model)
    whole = client.post(path, json={"inputs": texts}).json()
    parts = []
    monkeypatch.setattr(readers, "_PART_CHARS", 20)
    monkeypatch.setattr(service, "_INLINE_CHARS", 0)
    method = "read" if path == "/embed" else "read_entities"
    real = getattr(Model, method)

    def counted(self, part, **options):
        parts.append(len(part))
        return real(self, part, **options)

    monkeypatch.setattr(Model, method, counted)
    assert client.post(path, json={"inputs": texts}).json() == whole
    assert parts == [2, 1, 2, 1]


def held_back(let, told, name):
    let.acquire()
    told.append(name)
    yield name


def test_a_short_request_is_not_held_up_by_long_ones():
    let, told = threading.Semaphore(0), []
    readers = Readers(threads=1, max_queue_chars=10_000)

    async def run():
        def read(name, chars):
            return asyncio.ensure_future(readers.read(chars, held_back(let, told, name)))

        first = read("first", 10)
        await until(lambda: not readers.queued_chars and readers._clock)
        long = [read("long", 3000), read("long", 3000)]
        await until(lambda: readers.queued_chars == 6000)
        short = read("short", 100)
        with pytest.raises(Overloaded, match="6100 characters are waiting"):
            await until(lambda: readers.queued_chars == 6100)
            await read("more", 5000)
        let.release(10)
        assert await asyncio.gather(first, *long, short) == [
            ["first"],
            ["long"],
            ["long"],
            ["short"],
        ]
        assert readers.queued_chars == 0

    asyncio.run(run())
    readers.close()
    assert told == ["first", "short", "long", "long"]


def test_an_error_reaches_who_asked_and_the_thread_goes_on():
    readers = Readers(threads=1, max_queue_chars=100)

    def broken():
        yield 1
        raise BaseException("a panic")

    async def run():
        with pytest.raises(BaseException, match="a panic"):
            await readers.read(10, broken())
        assert await readers.read(10, iter("ab")) == ["a", "b"]

    asyncio.run(run())
    readers.close()


def test_closing_reads_what_waits():
    let, told = threading.Semaphore(0), []
    readers = Readers(threads=1, max_queue_chars=100)

    async def run():
        waiting = [
            asyncio.ensure_future(readers.read(10, held_back(let, told, name))) for name in "abc"
        ]
        await until(lambda: readers.queued_chars == 20)
        let.release(3)
        await asyncio.to_thread(readers.close)
        assert await asyncio.gather(*waiting) == [["a"], ["b"], ["c"]]
        with pytest.raises(Unavailable, match="stopping"):
            await readers.read(10, iter("d"))

    asyncio.run(run())
