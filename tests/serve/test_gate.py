"""Limits, keys and what is told of a request."""

import asyncio
import hashlib
import json
import logging

import pytest

from rubert_lite.errors import InputError, PackageError
from serve.gate import Keys
from serve.server import _reload
from serve.settings import Settings


@pytest.mark.parametrize(
    ("path", "picture"),
    [
        ("/v1/embeddings", lambda b: b["error"]["message"]),
        ("/embed", lambda b: b["error"]),
        ("/v2/models/tiny/infer", lambda b: b["error"]),
    ],
)
def test_a_long_body_is_refused_by_its_header_and_by_its_bytes(opened, path, picture):
    client = opened(max_body_bytes=1000)
    answer = client.post(path, content=b"x" * 1001)
    assert answer.status_code == 413 and "1001 bytes, expected at most 1000" in picture(
        answer.json()
    )

    def endless():
        for _ in range(100):
            yield b"x" * 100

    answer = client.post(path, content=endless())
    assert answer.status_code == 413 and "more than 1000 bytes" in picture(answer.json())


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"content-type": "application/x-www-form-urlencoded"}, "expected application/json"),
        ({"content-type": "multipart/form-data; boundary=x"}, "expected application/json"),
        ({"content-encoding": "gzip"}, "compressed bodies are not read"),
    ],
)
def test_forms_and_compressed_bodies_are_not_read(client, headers, said):
    answer = client.post("/embed", content=b'{"inputs": "a"}', headers=headers)
    assert answer.status_code == 415 and said in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"inputs": NaN}',
        b'{"inputs": "\\ud800"}',
        b'{"inputs": "\xff"}',
        b"[" * 5000 + b"]" * 5000,
        b'{"inputs": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    ],
    ids=["empty", "cut", "list", "null", "nan", "surrogate", "bytes", "deep", "deep inside"],
)
def test_what_is_no_json_is_told_without_its_words(client, body):
    for path in ("/embed", "/v1/embeddings", "/predict", "/tokenize", "/v2/models/tiny/infer"):
        answer = client.post(path, content=body)
        assert answer.status_code in (400, 422), (path, answer.text)
        assert "error" in answer.json()


def test_controls_and_nul_are_read_by_the_text_contract(client, model):
    found = client.post("/embed", json={"inputs": ["ми\0р", "мир"]}).json()
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("settings", "texts", "said"),
    [
        ({"max_items": 2}, ["а"] * 3, "3 texts, expected at most 2"),
        ({"max_item_chars": 10}, ["а", "б" * 11], "text 1: 11 characters, expected at most 10"),
        ({"max_queue_tokens": 1024}, ["а б в г д " * 6] * 60, "expected at most 1024 a request"),
    ],
)
def test_limits_of_texts(opened, settings, texts, said):
    answer = opened(**settings).post("/embed", json={"inputs": texts})
    assert answer.status_code == 413 and said in answer.json()["error"]


def test_keys_open_the_server_and_rotate(opened, tmp_path):
    file = tmp_path / "keys"
    file.write_text("# old\nsecond\nsha256:" + hashlib.sha256(b"third").hexdigest() + "\n")
    client = opened(api_keys="first, spare", api_keys_file=file)
    for key in ("first", "spare", "second", "third"):
        headers = {"authorization": f"Bearer {key}"}
        assert client.post("/embed", json={"inputs": "а"}, headers=headers).status_code == 200
    for header in (None, "Bearer", "Bearer wrong", "Basic first", "first", "Bearer \xff"):
        headers = {} if header is None else {"authorization": header.encode("latin-1")}
        answer = client.post("/v1/embeddings", content=b"x" * 10**7, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["type"] == "authentication_error"
    assert client.get("/metrics").status_code == 401
    assert client.get("/health").status_code == 200
    file.write_text("fourth\n")
    client.keys.use(client.keys.read())
    tried = {
        key: client.get("/info", headers={"authorization": f"Bearer {key}"}).status_code
        for key in ("first", "second", "fourth")
    }
    assert tried == {"first": 200, "second": 401, "fourth": 200}
    file.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        client.keys.read()
    assert client.get("/info", headers={"authorization": "Bearer fourth"}).status_code == 200


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "keys: no keys"),
        ("# none\n\n", "keys: no keys"),
        ("a\nsha256:abcd\n", "keys, 2: sha256: expected 64 hexadecimal digits"),
        ("sha256:" + "x" * 64, "keys, 1: sha256: expected 64 hexadecimal digits"),
    ],
)
def test_keys_that_open_nothing_are_refused(tmp_path, lines, said):
    file = tmp_path / "keys"
    file.write_text(lines)
    with pytest.raises(InputError, match=said):
        Keys(Settings(api_keys_file=file))
    with pytest.raises(InputError, match="none between the commas"):
        Keys(Settings(api_keys=" , "))


def test_a_broken_file_of_keys_does_not_open_the_server(opened, tmp_path):
    file = tmp_path / "keys"
    file.write_text("\ufeffsecret\nключР\n", encoding="utf-8")
    client = opened(api_keys_file=file)
    file.write_text("# all gone\n")
    asyncio.run(_reload(client.service, client.keys))
    for header, status in ((None, 401), ("secret", 200), ("ключР", 200), ("ключ", 401)):
        headers = {"authorization": f"Bearer {header}".encode()} if header else {}
        assert client.get("/info", headers=headers).status_code == status


def test_keys_and_model_are_loaded_anew_together(opened, tmp_path, monkeypatch):
    file = tmp_path / "keys"
    file.write_text("old\n")
    client = opened(api_keys_file=file)
    file.write_text("new\n")
    for model_loads in (False, True):

        def reload(loads=model_loads):
            if not loads:
                raise PackageError("tokenizer.json: not what the manifest says")

        monkeypatch.setattr(client.service, "reload", reload)
        asyncio.run(_reload(client.service, client.keys))
        headers = {"authorization": "Bearer new"}
        assert client.get("/info", headers=headers).status_code == (200 if model_loads else 401)


def test_what_is_refused_at_the_gate_is_counted_by_its_route(opened):
    client = opened(api_keys="k")
    for path in ("/v1/embeddings", "/nothing"):
        assert client.post(path, json={}).status_code == 401
    text = client.get("/metrics", headers={"authorization": "Bearer k"}).text
    assert 'route="/v1/embeddings",status="401"' in text
    assert 'route="other",status="401"' in text and "nothing" not in text


def test_request_ids_are_kept_if_they_are_harmless(client):
    def number(given):
        return client.get("/health", headers={"x-request-id": given}).headers["x-request-id"]

    assert number("abc-1.2_3") == "abc-1.2_3"
    assert number("a b") != "a b" and len(number("x" * 65)) == 16


def test_other_paths_and_methods(client):
    for path, method, status in (
        ("/nothing", "GET", 404),
        ("/embed", "GET", 405),
        ("/health", "POST", 405),
        ("/v1/nothing", "POST", 404),
    ):
        answer = client.request(method, path)
        assert answer.status_code == status and "error" in answer.json()
        assert ("allow" in answer.headers) == (status == 405)
    assert client.post("/embed").headers.get("allow") is None
    assert client.get("/embed").headers["allow"] == "POST"
    slash = client.post("/embed/", json={"inputs": "мир"}, follow_redirects=False)
    assert slash.status_code == 404 and "location" not in slash.headers
    text = client.get("/metrics").text
    assert 'route="other",status="404"' in text and "nothing" not in text


def test_a_full_line_refuses_before_a_request_is_read(client):
    """Reading what is refused anyway would cost the time of those that wait."""
    line = client.service.scheduler._line
    line.tokens = 10**9
    try:
        for path in ("/v1/embeddings", "/embed", "/predict", "/v2/models/tiny/infer"):
            found = client.post(path, content=b"{no json", headers={"content-type": "text/html"})
            assert (found.status_code, found.headers["retry-after"].isdecimal()) == (429, True)
            assert "1000000000 pieces are waiting" in found.text
        assert client.post("/tokenize", json={"inputs": "дом"}).status_code == 200
        assert client.get("/health").status_code == 200
    finally:
        line.tokens = 0
    assert client.post("/embed", content=b"{no json").status_code == 422


def test_draining_is_unready_but_answers(client):
    client.service.draining = True
    assert client.get("/health/ready").status_code == 503
    assert client.get("/health/live").status_code == 200
    assert client.get("/v2/models/tiny/ready").status_code == 503
    answer = client.post("/embed", json={"inputs": "мир"})
    assert answer.status_code == 200 and answer.headers["connection"] == "close"


def test_texts_of_users_stay_out_of_logs_and_errors(opened, caplog, monkeypatch):
    client = opened()
    caplog.set_level(logging.DEBUG)
    secret = "тайна"
    client.post("/embed", json={"inputs": secret})
    refused = client.post("/embed", json={"inputs": [secret, 3]})
    assert refused.status_code == 422 and secret not in refused.text

    def broken(*args, **kwargs):
        raise RuntimeError("no")

    monkeypatch.setattr(client.service, "embed", broken)
    failed = client.post("/embed", json={"inputs": secret})
    assert failed.status_code == 500 and "internal error" in failed.json()["error"]
    assert secret not in caplog.text
    assert [r.getMessage() for r in caplog.records if r.name == "rubert_lite.access"][:2] == [
        "POST /embed 200",
        "POST /embed 422",
    ]


def test_a_failing_graph_is_a_503(opened, model, monkeypatch):
    client = opened()

    def broken(*args, **kwargs):
        raise PackageError("graph: cannot compute")

    monkeypatch.setattr(type(model), "compute", broken)
    answer = client.post("/embed", json={"inputs": "мир"})
    assert answer.status_code == 503 and answer.json()["error_type"] == "Backend"


def test_log_lines_are_json():
    from serve.server import JsonLines

    record = logging.LogRecord("a", logging.INFO, "f", 1, "раз %s", ("два",), None)
    record.request_id, record.ms = "7", 1.5
    line = json.loads(JsonLines().format(record))
    assert (line["message"], line["request_id"], line["ms"]) == ("раз два", "7", 1.5)
