"""What odd bodies cost, what is open, and what happens when two things happen at once."""

import asyncio
import gc
import time

import pytest

from serve.server import _reload


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": ["а", *[1] * 300_000]}),
        ("/embed", {"inputs": ["а", *[1] * 300_000]}),
        ("/predict", {"inputs": ["а", *[1] * 300_000]}),
        ("/predict", {"inputs": [["а"], *[[1]] * 200_000]}),
        ("/similarity", {"inputs": {"source_sentence": "а", "sentences": [1] * 300_000}}),
        ("/answer", {"inputs": [{}] * 300_000}),
        ("/v2/models/tiny/infer", {"inputs": [], "outputs": [1] * 300_000}),
    ],
)
def test_a_body_of_many_faults_costs_as_much_as_one_of_one(client, path, body):
    gc.collect()
    gc.freeze()  # what other tests left is not looked through again for what this body makes
    began = time.perf_counter()
    answer = client.post(path, json=body)
    gc.unfreeze()
    assert answer.status_code in (400, 422) and len(answer.content) < 500
    assert "should be" in answer.text or "Field required" in answer.text
    assert time.perf_counter() - began < 1  # seconds, before


def test_null_is_as_good_as_nothing(client):
    body = {"input": "мир", "encoding_format": None, "model": None, "dimensions": None}
    assert client.post("/v1/embeddings", json=body).status_code == 200
    assert client.post("/embed", json={"inputs": "мир", "normalize": None}).status_code == 200
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["мир"]}
    body = {"inputs": [tensor | {"parameters": None}], "outputs": None, "parameters": None}
    assert client.post("/v2/models/tiny/infer", json=body).status_code == 200
    answer = client.post("/v1/embeddings", json={"input": None})
    assert "input: Field required" in answer.json()["error"]["message"]


def test_pieces_are_bounded_where_nothing_waits(opened):
    client = opened(max_queue_tokens=1024)
    assert client.post("/tokenize", json={"inputs": "а " * 1000}).status_code == 200
    answer = client.post("/tokenize", json={"inputs": ["а " * 300] * 4})
    assert answer.status_code == 413 and "more than 1024 pieces" in answer.json()["error"]


def test_metrics_may_be_open_where_the_rest_is_not(opened):
    for settings, status in (({}, 401), ({"open_metrics": True}, 200)):
        client = opened(api_keys="k", **settings)
        assert client.get("/metrics").status_code == status
        assert client.get("/info").status_code == 401


def test_the_last_of_two_reloads_counts(opened, tmp_path, monkeypatch):
    file = tmp_path / "keys"
    file.write_text("first\n")
    client = opened(api_keys_file=file)
    pauses = iter((0.3, 0.0))
    monkeypatch.setattr(client.service, "reload", lambda: time.sleep(next(pauses)))

    async def run():
        file.write_text("old\n")
        one = asyncio.ensure_future(_reload(client.service, client.keys))
        await asyncio.sleep(0.1)
        file.write_text("new\n")
        await asyncio.gather(one, _reload(client.service, client.keys))

    asyncio.run(run())
    for key, status in (("old", 401), ("new", 200)):
        headers = {"authorization": f"Bearer {key}"}
        assert client.get("/info", headers=headers).status_code == status


def test_whoever_waits_when_the_time_is_over_gets_an_answer(opened, monkeypatch):
    client = opened()
    sent = []

    async def run():
        async def receive():
            if not waiting.is_set():
                waiting.set()
                return {"type": "http.request", "body": b'{"inputs": "a"}', "more_body": False}
            await asyncio.sleep(60)

        async def send(message):
            sent.append(message)

        async def never(*arguments, **options):
            await asyncio.sleep(60)

        waiting = asyncio.Event()
        monkeypatch.setattr(client.service.scheduler, "compute", never)
        scope = {"type": "http", "method": "POST", "path": "/embed", "headers": []}
        scope |= {"query_string": b"", "root_path": "", "client": None, "server": None}
        task = asyncio.ensure_future(client.app(scope, receive, send))
        await waiting.wait()
        await asyncio.sleep(0.05)
        client.service.draining = True
        task.cancel()
        await task

    asyncio.run(run())
    assert sent[0]["status"] == 503 and b"the server has stopped" in sent[1]["body"]
