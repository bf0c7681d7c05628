"""The document of the routes."""

from pathlib import Path

from serve.app import list_endpoints, write_document
from serve.settings import Settings

KEPT = Path(__file__).parents[2] / "serve" / "openapi.json"


def test_the_document_in_the_repository_is_the_one_that_is_served(client):
    served = client.get("/openapi.json")
    assert served.headers["content-type"] == "application/json"
    assert served.content == KEPT.read_bytes(), "run `make openapi` and look at the difference"
    assert served.content == write_document(list_endpoints(Settings()))


def test_every_route_is_in_it(client):
    paths = client.get("/openapi.json").json()["paths"]
    routes = {r.path_format for r in client.app._app.routes} - {"/", "/openapi.json"}
    assert set(paths) == routes
    assert paths["/embed"]["post"]["security"] == [{"key": []}, {}]
    assert "security" not in paths["/health/live"]["get"]
