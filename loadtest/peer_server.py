"""FastAPI around sentence-transformers, as a team would write it in an afternoon: a peer.

    python loadtest/peer_server.py MODEL_DIRECTORY PORT

One process, one torch thread, one model call a request; requests wait for each other in FastAPI's
own thread pool. Runs in the environment of the peers (see loadtest/peers), not in ours.
"""

import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

torch.set_num_threads(1)
model = SentenceTransformer(sys.argv[1], device="cpu")
app = FastAPI()


class Request(BaseModel):
    """The part of OpenAI's request that the load test sends."""

    input: list[str]
    model: str = ""


@app.post("/v1/embeddings")
def embeddings(request: Request) -> dict[str, object]:
    """Return vectors as lists of floats."""
    rows = model.encode(request.input, normalize_embeddings=True)
    data = [
        {"object": "embedding", "index": i, "embedding": row.tolist()} for i, row in enumerate(rows)
    ]
    return {"object": "list", "data": data, "model": request.model}


@app.get("/health")
def health() -> dict[str, str]:
    """Say that requests can come."""
    return {"status": "ready"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
