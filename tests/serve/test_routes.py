"""Which path is whose: names with slashes, labels of metrics, and what the document says."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from rubert_lite import load
from rubert_lite.package import ModelPackage, seal
from tests.rubert_lite.conftest import build

TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["мир"]}
DOCUMENT = Path(__file__).parents[2] / "serve" / "openapi.json"


@pytest.fixture
def slashed(opened, tmp_path):
    """A client of a model whose name has a slash."""
    path = build(tmp_path / "tiny")
    seal(path, replace(ModelPackage.open(path).manifest, name="me/x"))
    return opened(load(path, lanes=1))


@pytest.mark.parametrize("name", ["me/x", "me%2Fx"])
def test_names_with_slashes_are_found(slashed, name):
    assert slashed.get(f"/v1/models/{name}").json()["id"] == "me/x"
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/1"):
        assert slashed.get(path).json()["versions"] == ["1"]
        assert slashed.get(f"{path}/ready").json() == {"name": "me/x", "ready": True}
        answer = slashed.post(f"{path}/infer", json={"inputs": [TENSOR]})
        assert answer.json()["model_name"] == "me/x"
    text = slashed.get("/metrics").text
    for route in ("/v1/models/{name}", "/v2/models/{name}/versions/{version}/infer"):
        assert f'route="{route}",status="200"' in text


def test_other_names_and_methods_are_refused_as_before(client):
    for method, path, status in (
        ("GET", "/v1/models/", 404),
        ("GET", "/v2/models/", 404),
        ("GET", "/v2/models//ready", 404),
        ("GET", "/v2/models/tiny/x", 404),
        ("GET", "/v2/models/tiny/versions/2", 404),
        ("GET", "/v2/models/tiny/infer", 405),
        ("POST", "/v2/models/tiny/ready", 405),
        ("POST", "/v2/models/tiny", 405),
    ):
        answer = client.request(method, path)
        assert answer.status_code == status, (method, path)
        assert isinstance(answer.json()["error"], str if path.startswith("/v2") else dict)


def test_what_is_refused_at_the_gate_has_the_route_of_a_model(opened, caplog):
    caplog.set_level(logging.INFO)
    client = opened(api_keys="k", max_body_bytes=1000)
    key = {"authorization": "Bearer k"}
    path = "/v2/models/tiny/infer"
    assert client.post(path, json={}).status_code == 401
    assert client.post(path, content=b"x" * 1001, headers=key).status_code == 413
    form = {"content-type": "text/html"}
    assert client.post(path, content=b"{}", headers=key | form).status_code == 415
    assert client.get("/v2/models/tiny/ready").status_code == 401
    text = client.get("/metrics", headers=key).text
    for status in (401, 413, 415):
        assert f'route="/v2/models/{{name}}/infer",status="{status}"' in text
    assert 'route="/v2/models/{name}/ready",status="401"' in text
    assert 'route="other"' not in text
    assert "POST /v2/models/{name}/infer 401" in caplog.text


def test_what_a_stopping_server_says_is_what_the_document_says(client):
    client.service.draining = True
    document = json.loads(DOCUMENT.read_bytes())
    refused = []
    for path, methods in document["paths"].items():
        if "get" not in methods:
            continue
        answer = client.get(path.format(name="tiny", version="1"))
        if answer.status_code == 503:
            refused.append(path)
            told = methods["get"]["responses"]["503"]["content"]["application/json"]["schema"]
            jsonschema.validate(answer.json(), told)
    assert refused == [
        "/health",
        "/health/ready",
        "/v2/health/ready",
        "/v2/models/{name}/versions/{version}/ready",
        "/v2/models/{name}/ready",
    ]
