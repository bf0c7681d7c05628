"""What stands around the gate: origins and spans."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.testclient import TestClient

from serve.app import allow_origins, create_app
from serve.settings import Settings
from serve.tracing import Traced, open_tracing

ASK = {"origin": "https://page.example", "access-control-request-method": "POST"}


@pytest.fixture
def around(model):
    """Return a function that opens a client of the whole application."""
    services = []

    def start(wrap=lambda app: app, **settings):
        chosen = Settings(**settings)
        app = create_app(model, chosen)
        services.append(app.service)
        return TestClient(wrap(allow_origins(app, chosen)), raise_server_exceptions=False)

    yield start
    for service in services:
        service.close()


def test_no_page_of_another_origin_may_call_unless_named(around):
    for origins in ("", "https://other.example"):
        client = around(cors_origins=origins)
        answer = client.post("/embed", json={"inputs": "мир"}, headers=ASK)
        assert "access-control-allow-origin" not in answer.headers


def test_named_origins_may_call_without_cookies(around):
    client = around(cors_origins="https://page.example, https://b.example", api_keys="secret")
    asked = client.options(
        "/embed", headers=ASK | {"access-control-request-headers": "authorization,x-stainless-arch"}
    )
    assert asked.status_code == 200  # a browser asks without a key
    assert asked.headers["access-control-allow-origin"] == "https://page.example"
    assert "access-control-allow-credentials" not in asked.headers
    headers = {"origin": "https://page.example", "authorization": "Bearer secret"}
    answer = client.post("/embed", json={"inputs": "мир"}, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    refused = client.post("/embed", json={"inputs": "мир"}, headers={"origin": ASK["origin"]})
    assert refused.status_code == 401 and "access-control-allow-origin" in refused.headers


@pytest.fixture
def spans():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, exporter
    provider.shutdown()


def test_a_span_tells_route_status_and_phases_but_no_text(around, spans):
    provider, exporter = spans
    client = around(wrap=lambda app: Traced(app, provider))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    client.post("/embed", json={"inputs": "тайна"}, headers={"traceparent": parent})
    (span,) = exporter.get_finished_spans()
    assert span.name == "POST /embed" and span.kind is SpanKind.SERVER
    assert f"{span.context.trace_id:032x}" == parent[3:35] and span.parent is not None
    found = dict(span.attributes or {})
    assert (found["http.route"], found["http.response.status_code"]) == ("/embed", 200)
    assert all(found[f"rubert_lite.{p}_ms"] >= 0 for p in ("queue", "tokenization", "inference"))
    assert "тайна" not in span.to_json()


def test_refusals_and_unknown_routes_have_spans_too(around, spans):
    provider, exporter = spans
    client = around(wrap=lambda app: Traced(app, provider))
    client.post("/embed", content=b"{")
    client.get("/secret/тайна")
    names = [(s.name, s.status.status_code) for s in exporter.get_finished_spans()]
    assert names == [("POST /embed", StatusCode.UNSET), ("GET other", StatusCode.UNSET)]


def test_spans_reach_an_endpoint(around):
    arrived = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            arrived.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
        provider, end = open_tracing(endpoint, "tiny")
        client = around(wrap=lambda app: Traced(app, provider))
        assert client.post("/embed", json={"inputs": "тайна"}).status_code == 200
        end()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert b"POST /embed" in b"".join(arrived) and b"rubert-lite" in b"".join(arrived)
    assert "тайна".encode() not in b"".join(arrived)
    assert "тайна" not in json.dumps([str(a) for a in arrived], ensure_ascii=False)
