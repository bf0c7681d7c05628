"""Scale out on a Ray cluster: `serve run deploy.ray_app:app`, with ray[serve] installed.

Each replica owns one lane. Ray joins requests into batches; the model cuts a batch into texts of
equal length, so a vector does not depend on the batch it came in.
"""

from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

import rubert_lite
from rubert_lite.errors import InputError


@serve.deployment(
    ray_actor_options={"num_cpus": 1},
    max_ongoing_requests=64,
    max_queued_requests=1024,
    autoscaling_config={"min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": 16},
)
class Encoder:
    """POST {"input": [...]}: the vectors of texts, as OpenAI's /v1/embeddings has them."""

    def __init__(self, name: str = "distil-16k") -> None:
        """Load the model of a replica."""
        self.model = rubert_lite.load(name, lanes=1)

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.0)
    async def encode(self, requests: list[list[str]]) -> list[list[list[float]]]:
        """Encode the texts of several requests together."""
        rows = self.model.encode([text for texts in requests for text in texts])
        found, start = [], 0
        for texts in requests:
            found.append(rows[start : start + len(texts)].tolist())
            start += len(texts)
        return found

    async def __call__(self, request: Request) -> JSONResponse:
        """Answer one request."""
        try:
            body: Any = await request.json()
        except ValueError:  # no JSON, or no UTF-8
            body = None
        given = body.get("input") if isinstance(body, dict) else None
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts) or not texts:
            error = InputError("input: expected a string or a list of strings")
            return JSONResponse({"error": {"message": str(error)}}, status_code=400)
        rows = await self.encode(texts)
        data = [{"object": "embedding", "index": i, "embedding": r} for i, r in enumerate(rows)]
        return JSONResponse({"object": "list", "data": data})


app = Encoder.bind()
