"""The OpenAI protocol: /v1/embeddings and /v1/models."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rubert_lite.errors import ModelNotFound

from .faults import fault_of
from .reading import as_list, read_body
from .schemas import EmbeddingsRequest
from .service import Answer, Service
from .writing import as_base64, convert, json_response


async def embeddings(request: Request) -> Response:
    """Return the vectors of one or several texts."""
    service: Service = request.app.state.service
    body = await read_body(request, EmbeddingsRequest)
    texts = as_list(body.input)
    check_name(service, body.model)
    refused: dict[int, dict[str, Any]] = {}
    kept = texts
    if body.partial:
        for place, error in (await service.refused(texts)).items():
            fault = fault_of(error)
            refused[place] = {"message": fault.message, "code": fault.status}
        kept = [text for i, text in enumerate(texts) if i not in refused]
    answer: Answer | None = None
    vectors: list[Any] = []
    if kept or not refused:
        answer = await service.embed(kept, width=body.dimensions)
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
            "model": service.model.package.manifest.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        },
        spent,
    )


def check_name(service: Service, name: str) -> None:
    """Refuse the name of another model; an empty one means whatever is served."""
    own = service.model.package.manifest.name
    if name not in ("", own, service.settings.model):
        raise ModelNotFound(f"model {name!r} is not served here, only {own!r}")


async def models(request: Request) -> Response:
    """List the one model."""
    return json_response({"object": "list", "data": [_card(request.app.state.service)]})


async def model(request: Request) -> Response:
    """Describe the model."""
    service: Service = request.app.state.service
    check_name(service, request.path_params["name"])
    return json_response(_card(service))


def _card(service: Service) -> dict[str, Any]:
    manifest = service.model.package.manifest
    return {"id": manifest.name, "object": "model", "created": 0, "owned_by": "rubert-lite"}
