"""From rows to the bytes of an answer."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.responses import Response

from .service import Spent


def json_response(body: Any, spent: Spent | None = None, status: int = 200) -> Response:
    """Write JSON; arrays inside are written as lists."""
    data = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    headers = phase_headers(spent) if spent else None
    return Response(data, status, headers, media_type="application/json")


def phase_headers(spent: Spent) -> Mapping[str, str]:
    """Say where the time went, in milliseconds, in the names that other servers use."""
    found = {f"x-{name}-time": f"{1000 * seconds:.3f}" for name, seconds in spent.phases.items()}
    found["x-compute-tokens"] = str(spent.tokens)
    return found


def convert(rows: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Return rows in the type asked for; see EmbeddingsRequest.output_dtype."""
    if dtype == "int8":
        peak = np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.float32(1e-12))
        whole: NDArray[np.int8] = np.rint(rows / peak * 127).astype(np.int8)
        return whole
    if dtype == "ubinary":
        return np.packbits(rows > 0, axis=1)
    if dtype == "binary":
        return (np.packbits(rows > 0, axis=1).astype(np.int16) - 128).astype(np.int8)
    return np.ascontiguousarray(rows, dtype=np.float32)


def as_base64(row: NDArray[Any]) -> str:
    """Write the little-endian bytes of a row."""
    little = row.astype(row.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(little.tobytes()).decode("ascii")
