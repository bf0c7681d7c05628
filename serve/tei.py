"""Text-embeddings-inference: /embed, /similarity, /predict, /tokenize, /info, /health."""

from collections.abc import Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from rubert_lite import __version__
from rubert_lite.errors import InputError
from rubert_lite.inputs import Text
from rubert_lite.pieces import Span

from .reading import as_list, read_body
from .schemas import EmbedRequest, PredictRequest, SimilarityRequest, TokenizeRequest
from .service import Service
from .writing import json_response


async def embed(request: Request) -> Response:
    """Return the vectors of one or several texts, as bare lists."""
    service: Service = request.app.state.service
    visit = service.visit()
    body = await read_body(request, EmbedRequest)
    if body.prompt_name:
        raise InputError(f"prompt_name {body.prompt_name!r}: this model has no prompts")
    answer = await service.embed(
        visit,
        as_list(body.inputs),
        normalize=body.normalize,
        width=body.dimensions,
        cut=body.truncate,
    )
    return json_response([*answer.rows], answer.spent)


async def similarity(request: Request) -> Response:
    """Return the cosine of each sentence with the source sentence."""
    service: Service = request.app.state.service
    visit = service.visit()
    body = await read_body(request, SimilarityRequest)
    inputs = body.inputs
    texts = [inputs.source_sentence, *inputs.sentences]
    answer = await service.embed(visit, texts, cut=body.parameters.truncate)
    return json_response(answer.rows[1:] @ answer.rows[0], answer.spent)


async def predict(request: Request) -> Response:
    """Return labels and scores: a list for one text or pair, a list of lists for a batch."""
    service: Service = request.app.state.service
    visit = service.visit()
    body = await read_body(request, PredictRequest)
    texts, single = _texts(body.inputs)
    found, answer = await service.classify(visit, texts, cut=body.truncate)
    if body.raw_scores:
        labels = visit.model.labels
        rows = [
            sorted(zip(labels, row.tolist(), strict=True), key=lambda pair: -pair[1])
            for row in answer.rows
        ]
    else:
        rows = [list(p.scores.items()) for p in found]
    lists = [[{"score": score, "label": label} for label, score in row] for row in rows]
    return json_response(lists[0] if single else lists, answer.spent)


def _texts(inputs: str | list[str] | list[list[str]]) -> tuple[list[Text], bool]:
    """Read the three shapes of `inputs`; a flat list is one text or one pair."""
    if isinstance(inputs, str):
        return [inputs], True
    if not inputs:
        return [], False
    if isinstance(inputs[0], str):
        return [_text([str(part) for part in inputs])], True
    return [_text(part) for part in inputs if isinstance(part, list)], False


def _text(parts: Sequence[str]) -> Text:
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2:
        return parts[0], parts[1]
    raise InputError(
        f"inputs: {len(parts)} texts, expected one or a pair; a batch is [[text], [text]]"
    )


async def tokenize(request: Request) -> Response:
    """Return the pieces of texts; places are characters of the text as given."""
    service: Service = request.app.state.service
    visit = service.visit()
    body = await read_body(request, TokenizeRequest)

    def write(spans: list[Span]) -> orjson.Fragment:
        rows = [
            {
                "id": s.id,
                "text": s.piece,
                "special": s.start is None,
                "start": s.start,
                "stop": s.stop,
            }
            for s in (spans if body.add_special_tokens else spans[1:-1])
        ]
        return orjson.Fragment(orjson.dumps(rows))

    return json_response(await service.tokenize(visit, as_list(body.inputs), write))


async def info(request: Request) -> Response:
    """Describe the model and the limits."""
    service: Service = request.app.state.service
    model, settings = service.model, service.settings
    manifest = model.package.manifest
    kind: dict[str, Any] = {"embedding": {"pooling": manifest.pooling}}
    if model.labels:
        names = {str(i): label for i, label in enumerate(model.labels)}
        kind["classifier"] = {"id2label": names, "label2id": {v: int(k) for k, v in names.items()}}
        if manifest.inputs:  # ours: what it was trained on
            kind["classifier"]["inputs"] = manifest.inputs
    if manifest.task == "token-classification":
        kind["token-classification"] = {"labels": manifest.labels}
    if manifest.task == "question-answering":
        kind["question-answering"] = {}
    return json_response(
        {
            "model_id": manifest.name,
            "model_sha": manifest.files[manifest.variants[model.variant]].sha256,
            "model_dtype": model.variant,
            "model_type": kind,
            "max_input_length": model.max_length,
            "max_batch_tokens": settings.max_queue_tokens,
            "max_client_batch_size": settings.max_items,
            "auto_truncate": settings.auto_truncate,
            "dimensions": model.dim,
            "version": __version__,
        }
    )
