"""The OpenAI protocol: /v1/embeddings and /v1/models."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rubert_lite import Model
from rubert_lite.errors import ModelNotFound

from .faults import fault_of
from .reading import as_list, read_body
from .schemas import EmbeddingsRequest
from .service import Answer, Service
from .writing import as_base64, convert, json_response


async def embeddings(request: Request) -> Response:
    """Return the vectors of one or several texts."""
    service: Service = request.app.state.service
    visit = service.visit()
    body = await read_body(request, EmbeddingsRequest)
    texts = as_list(body.input)
    if body.model:  # an empty name means whatever is served
        check_name(service, visit.model, body.model)
    refused: dict[int, dict[str, Any]] = {}
    kept = texts
    if body.partial:
        for place, error in (await service.refused(visit, texts)).items():
            fault = fault_of(error)
            refused[place] = {"message": fault.message, "code": fault.status}
        kept = [text for i, text in enumerate(texts) if i not in refused]
    answer: Answer | None = None
    vectors: list[Any] = []
    if kept or not refused:
        answer = await service.embed(visit, kept, width=body.dimensions)
        rows = convert(answer.rows, body.output_dtype)
        vectors = [as_base64(row) for row in rows] if body.encoding_format == "base64" else [*rows]
    stream = iter(vectors)
    data = [
        {"object": "error", "index": i, "error": refused[i]}
        if i in refused
        else {"object": "embedding", "index": i, "embedding": next(stream)}
        for i in range(len(texts))
    ]
    spent = answer.spent if answer else None
    tokens = spent.tokens if spent else 0
    return json_response(
        {
            "object": "list",
            "data": data,
            "model": visit.model.package.manifest.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        },
        spent,
    )


def check_name(service: Service, model: Model, name: str) -> None:
    """Refuse the name of another model: ModelNotFound."""
    own = model.package.manifest.name
    if name not in (own, service.settings.model):
        raise ModelNotFound(f"model {name!r} is not served here, only {own!r}")


async def models(request: Request) -> Response:
    """List the one model."""
    service: Service = request.app.state.service
    return json_response({"object": "list", "data": [_card(service.model)]})


async def model(request: Request) -> Response:
    """Describe the model."""
    service: Service = request.app.state.service
    found = service.model
    check_name(service, found, request.path_params["name"])
    return json_response(_card(found))


def _card(model: Model) -> dict[str, Any]:
    name = model.package.manifest.name
    return {"id": name, "object": "model", "created": 0, "owned_by": "rubert-lite"}
