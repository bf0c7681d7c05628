"""Entities and answers, in the shapes of transformers' pipelines: /tag and /answer.

No protocol of embedding servers has them; clients of hosted pipelines, such as huggingface_hub's
InferenceClient, read these.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rubert_lite import Answer, Entity

from .reading import as_list, read_body
from .schemas import AnswerRequest, TagRequest
from .service import Service
from .writing import json_response


async def tag(request: Request) -> Response:
    """Return the entities of a text, or a list of them for each of several texts."""
    service: Service = request.app.state.service
    visit = service.visit()
    body = await read_body(request, TagRequest)
    found, spent = await service.tag(visit, as_list(body.inputs))
    rows = [[_entity(e) for e in entities] for entities in found]
    return json_response(rows[0] if isinstance(body.inputs, str) else rows, spent)


async def answer(request: Request) -> Response:
    """Return the answer to a question, or to each of several."""
    service: Service = request.app.state.service
    visit = service.visit()
    body = await read_body(request, AnswerRequest)
    several = isinstance(body.inputs, list)
    asked = body.inputs if isinstance(body.inputs, list) else [body.inputs]
    found, spent = await service.answer(visit, [(a.question, a.context) for a in asked])
    rows = [_answer(a) for a in found]
    return json_response(rows if several else rows[0], spent)


def _entity(entity: Entity) -> dict[str, Any]:
    return {
        "entity_group": entity.label,
        "score": entity.score,
        "word": entity.text,
        "start": entity.start,
        "end": entity.end,
    }


def _answer(answer: Answer) -> dict[str, Any]:
    return {
        "answer": answer.text,
        "score": answer.score,
        "start": answer.start,
        "end": answer.end,
    }
