"""The OpenAPI document, from one table of routes."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from rubert_lite import __version__

Handler = Callable[[Request], Awaitable[Response]]
_REFERENCE = "#/components/schemas/{model}"
_ERRORS = {
    "/v1/": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": "string"},
                },
            }
        },
    },
    "/v2": {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    },
    "": {
        "type": "object",
        "required": ["error", "error_type"],
        "properties": {"error": {"type": "string"}, "error_type": {"type": "string"}},
    },
}
READY = {
    "type": "object",
    "required": ["ready"],
    "properties": {"ready": {"type": "boolean"}},
}
MODEL_READY = {
    "type": "object",
    "required": ["name", "ready"],
    "properties": {"name": {"type": "string"}, "ready": {"type": "boolean"}},
}
_POST_STATUSES = (400, 408, 413, 415, 422, 429, 503)


@dataclass(frozen=True)
class Endpoint:
    """A route and what the document says of it."""

    path: str
    handler: Handler
    summary: str
    body: type[BaseModel] | None = None  # of a POST
    answer: str = "application/json"
    open: bool = False  # needs no key
    unready: Mapping[str, Any] | None = None  # schema of a 503 that is no error


def document(endpoints: list[Endpoint]) -> dict[str, Any]:
    """Write OpenAPI 3.1."""
    bodies = [e.body for e in endpoints if e.body is not None]
    unique = list(dict.fromkeys(bodies))
    _, schemas = models_json_schema(
        [(body, "validation") for body in unique], ref_template=_REFERENCE
    )
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        method = "post" if endpoint.body else "get"
        paths.setdefault(endpoint.path, {})[method] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "rubert_lite", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    statuses = [*(_POST_STATUSES if endpoint.body else (503,))]
    named = "{" in endpoint.path or endpoint.path.startswith("/v1/")
    statuses += [*([404] if named else []), *([] if endpoint.open else [401])]
    error = next(schema for prefix, schema in _ERRORS.items() if endpoint.path.startswith(prefix))
    responses: dict[str, Any] = {
        "200": {"description": "done", "content": {endpoint.answer: {}}},
    }
    for status in sorted(statuses):
        responses[str(status)] = {
            "description": "refused" if status < 500 else "not now",
            "content": {
                "application/json": {"schema": (status == 503 and endpoint.unready) or error}
            },
        }
    operation: dict[str, Any] = {"summary": endpoint.summary, "responses": responses}
    if not endpoint.open:
        operation["security"] = [{"key": []}, {}]
    names = [part[1:-1] for part in endpoint.path.split("/") if part.startswith("{")]
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    if endpoint.body is not None:
        reference = {"$ref": _REFERENCE.format(model=endpoint.body.__name__)}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": reference}},
        }
    return operation
