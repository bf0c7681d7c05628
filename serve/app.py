"""The ASGI application: routes of all protocols, probes, metrics and the page."""

from importlib.resources import files

import orjson
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Scope

from rubert_lite import Model
from rubert_lite.errors import RubertLiteError

from . import oip, openai, pipelines, tei
from .faults import Unavailable, fault_of, respond
from .gate import Gate, Keys
from .metrics import Metrics
from .openapi import MODEL_READY, READY, Endpoint, document
from .schemas import (
    AnswerRequest,
    EmbeddingsRequest,
    EmbedRequest,
    InferRequest,
    PredictRequest,
    SimilarityRequest,
    TagRequest,
    TokenizeRequest,
)
from .service import Service
from .settings import Settings
from .writing import json_response

_MODEL = "/v2/models/{name}"
_VERSION = f"{_MODEL}/versions/{{version}}"
# The page runs its own script and style, and asks nobody but this server.
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline';"
    " script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class _Whole(Route):
    """The route of an endpoint, and the only one of its paths.

    A name may have slashes, as in me/x. So the first route that fits a path has it whatever the
    method: `GET .../infer` is not allowed, and no question for a model of the name x/infer.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        path = endpoint.path.replace("{name}", "{name:path}")
        super().__init__(path, endpoint.handler, methods=["POST" if endpoint.body else "GET"])

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return Match.FULL if match is Match.PARTIAL else match, found


def create_app(model: Model, settings: Settings) -> Gate:
    """Return the ASGI application; signals act on its `service` and `keys`."""
    metrics = Metrics()
    service, keys = Service(model, settings, metrics), Keys(settings)
    endpoints = list_endpoints(settings)
    routes: list[Route] = [_Whole(e) for e in endpoints]
    if settings.docs:
        text = write_document(endpoints)

        async def openapi(request: Request) -> Response:
            return Response(text, media_type="application/json")

        routes.append(Route("/openapi.json", openapi))
    if settings.page:
        html = (files(__package__) / "page.html").read_text(encoding="utf-8")

        async def page(request: Request) -> Response:
            return HTMLResponse(html, headers=_PAGE_HEADERS)

        routes.append(Route("/", page))
    app = Starlette(
        routes=routes,
        exception_handlers={
            kind: _failed for kind in (RubertLiteError, ValidationError, HTTPException, Exception)
        },
    )
    # It would name the host that was asked for, and http, whatever stands before this server.
    app.router.redirect_slashes = False
    app.state.service = service
    return Gate(app, service, keys, routes=routes)


def allow_origins(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Let pages of `cors_origins` call; keys travel in a header, so no cookie is ever allowed."""
    origins = [o.strip() for o in settings.cors_origins.split(",") if o.strip()]
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],  # SDKs in a browser send a dozen of their own
        expose_headers=["x-request-id", "x-total-time", "retry-after"],
        max_age=600,
    )


def write_document(endpoints: list[Endpoint]) -> bytes:
    """Return /openapi.json; that of the default settings is kept in serve/openapi.json."""
    return orjson.dumps(document(endpoints), option=orjson.OPT_INDENT_2) + b"\n"


def list_endpoints(settings: Settings) -> list[Endpoint]:
    """Name every route that the OpenAPI document tells of."""
    found = [
        Endpoint("/v1/embeddings", openai.embeddings, "Vectors of texts", EmbeddingsRequest),
        Endpoint("/v1/models", openai.models, "The models served"),
        Endpoint("/v1/models/{name}", openai.model, "A model"),
        Endpoint("/embed", tei.embed, "Vectors of texts, as bare lists", EmbedRequest),
        Endpoint("/similarity", tei.similarity, "Cosines with a sentence", SimilarityRequest),
        Endpoint("/predict", tei.predict, "Labels and scores", PredictRequest),
        Endpoint("/tokenize", tei.tokenize, "Pieces of texts", TokenizeRequest),
        Endpoint("/tag", pipelines.tag, "Entities and their places", TagRequest),
        Endpoint("/answer", pipelines.answer, "Answers out of a text", AnswerRequest),
        Endpoint("/info", tei.info, "The model and the limits"),
        Endpoint("/health", _ready, "Whether to send requests here", open=True),
        Endpoint("/health/live", _live, "Whether the process works", open=True),
        Endpoint("/health/ready", _ready, "Whether to send requests here", open=True),
        Endpoint("/v2", oip.metadata, "The server"),
        Endpoint("/v2/health/live", oip.live, "Whether the process works", open=True),
        Endpoint(
            "/v2/health/ready", oip.ready, "Whether to send requests here", open=True, unready=READY
        ),
    ]
    for path in (_VERSION, _MODEL):  # the longer first: a name takes what follows it
        found += [
            Endpoint(
                f"{path}/ready", oip.model_ready, "Whether the model is ready", unready=MODEL_READY
            ),
            Endpoint(f"{path}/infer", oip.infer, "Outputs of texts or pairs", InferRequest),
            Endpoint(path, oip.model, "The tensors of a model"),
        ]
    if settings.metrics:
        found.append(Endpoint("/metrics", _metrics, "Prometheus", answer="text/plain"))
    return found


async def _failed(request: Request, error: Exception) -> Response:
    return respond(request.url.path, fault_of(error))


async def _live(request: Request) -> Response:
    return json_response({"status": "live"})


async def _ready(request: Request) -> Response:
    service: Service = request.app.state.service
    if not service.ready:
        raise Unavailable("the server is stopping: ask another one")
    return json_response({"status": "ready"})


async def _metrics(request: Request) -> Response:
    service: Service = request.app.state.service
    text, kind = service.metrics.text()
    return Response(text, headers={"content-type": kind})
