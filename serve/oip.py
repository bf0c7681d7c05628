"""The Open Inference Protocol v2, for KServe and Triton clients: JSON, and its binary extension.

One input: BYTES of shape [n] (texts) or [n, 2] (pairs, for logits). Outputs, FP32: those of the
graph, `sentence_embedding` unless others are asked for.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from rubert_lite import Model, __version__
from rubert_lite.errors import InputError, ModelNotFound
from rubert_lite.inputs import Text
from rubert_lite.model import Output
from rubert_lite.package import Manifest

from .openai import check_name
from .reading import parse
from .schemas import InferInput, InferRequest
from .service import Answer, Service
from .visit import Visit
from .writing import json_response, phase_headers

_HEADER = "inference-header-content-length"
_DIGITS = 20
_INPUT = "text"


async def metadata(request: Request) -> Response:
    """Describe the server."""
    extensions = ["binary_tensor_data"]
    return json_response({"name": "rubert-lite", "version": __version__, "extensions": extensions})


async def live(request: Request) -> Response:
    """Say that the process works."""
    return json_response({"live": True})


async def ready(request: Request) -> Response:
    """Say whether requests should be sent here."""
    service: Service = request.app.state.service
    return json_response({"ready": service.ready}, status=200 if service.ready else 503)


async def model_ready(request: Request) -> Response:
    """Say the same of a model."""
    service, visit = _begin(request)
    body = {"name": visit.model.package.manifest.name, "ready": service.ready}
    return json_response(body, status=200 if service.ready else 503)


async def model(request: Request) -> Response:
    """Describe the tensors of the model."""
    _, visit = _begin(request)
    manifest = visit.model.package.manifest
    return json_response(
        {
            "name": manifest.name,
            "versions": [manifest.version],
            "platform": "onnx_rubert_lite",
            "inputs": [{"name": _INPUT, "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": name, "datatype": "FP32", "shape": [-1, width]}
                for name, width in _widths(visit.model).items()
            ],
        }
    )


async def infer(request: Request) -> Response:
    """Compute outputs of texts or pairs."""
    service, visit = _begin(request)
    data = await request.body()
    size = _header_size(request, data)
    body = parse(data[:size], InferRequest)
    texts = _texts(body.inputs[0], data[size:])
    widths = _widths(visit.model)
    wanted = [o.name for o in body.outputs] or ["sentence_embedding"]
    unknown = [name for name in wanted if name not in widths]
    if unknown:
        raise InputError(f"outputs: no {unknown[0]!r}, the model has {', '.join(widths)}")
    found: dict[str, Answer] = {}
    for name in dict.fromkeys(wanted):
        found[name] = await _compute(service, visit, cast(Output, name), texts)
    everything = bool(body.parameters.get("binary_data_output", False))
    asked = {o.name: o.parameters.get("binary_data", everything) for o in body.outputs}
    binary = {name for name in found if asked.get(name, everything)}
    return _respond(visit.model.package.manifest, body, found, binary)


async def _compute(service: Service, visit: Visit, output: Output, texts: list[Text]) -> Answer:
    if output == "logits":
        return (await service.classify(visit, texts))[1]
    pairs = [place for place, text in enumerate(texts) if not isinstance(text, str)]
    if pairs:
        raise InputError(f"inputs: a pair at {pairs[0]}: only logits read pairs")
    normalize = output == "sentence_embedding"
    return await service.embed(visit, cast(list[str], texts), normalize=normalize)


def _begin(request: Request) -> tuple[Service, Visit]:
    """Begin a request to the model that the path names; ModelNotFound if it is another one."""
    service: Service = request.app.state.service
    visit = service.visit()
    check_name(service, visit.model, request.path_params["name"])
    version = request.path_params.get("version")
    if version not in (None, visit.model.package.manifest.version):
        raise ModelNotFound(f"version {version!r} is not served here")
    return service, visit


def _widths(model: Model) -> Mapping[str, int]:
    found = {"sentence_embedding": model.dim, "pooled": model.dim}
    if model.labels:
        found["logits"] = len(model.labels)
    return found


def _header_size(request: Request, data: bytes) -> int:
    given = request.headers.get(_HEADER)
    if given is None:
        return len(data)
    # Python refuses to read numbers of thousands of digits.
    if not given.isdecimal() or len(given) > _DIGITS or int(given) > len(data):
        raise InputError(f"{_HEADER}: {given[:20]!r}, expected a number up to {len(data)}")
    return int(given)


def _texts(tensor: InferInput, raw: bytes) -> list[Text]:
    if tensor.datatype != "BYTES":
        raise InputError(f"inputs: datatype {tensor.datatype!r}, expected BYTES (strings)")
    shape = tensor.shape
    if any(size < 0 for size in shape) or (len(shape) == 2 and shape[1] not in (1, 2)):
        raise InputError(f"inputs: shape {shape}, expected [n], [n, 1], or [n, 2] for pairs")
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        values = _flat(tensor.data or [])
    else:
        if size != len(raw):
            raise InputError(f"inputs: binary_data_size {size}, the body holds {len(raw)} bytes")
        values = _decode(raw)
    count = int(np.prod(shape)) if shape else 1
    if len(values) != count:
        raise InputError(f"inputs: {len(values)} texts, the shape {shape} says {count}")
    if len(shape) == 2 and shape[1] == 2:
        return list(zip(values[::2], values[1::2], strict=True))
    return list(values)


def _flat(data: Sequence[Any]) -> list[str]:
    flat: list[Any] = []
    for value in data:
        flat.extend(value if isinstance(value, list) else [value])
    wrong = [v for v in flat if not isinstance(v, str)]
    if wrong:
        raise InputError(f"inputs: data holds a {type(wrong[0]).__name__}, expected strings")
    return flat


def _decode(raw: bytes) -> list[str]:
    """Read BYTES: each string behind its length, 4 bytes, little-endian."""
    found = []
    place = 0
    while place < len(raw):
        if place + 4 > len(raw):
            raise InputError("inputs: the binary data end inside a length")
        (size,) = struct.unpack_from("<I", raw, place)
        text = raw[place + 4 : place + 4 + size]
        if len(text) < size:
            raise InputError("inputs: the binary data end inside a text")
        try:
            found.append(text.decode("utf-8"))
        except UnicodeDecodeError:
            raise InputError(f"inputs: text {len(found)} is not UTF-8") from None
        place += 4 + size
    return found


def _respond(
    manifest: Manifest, body: InferRequest, found: Mapping[str, Answer], binary: set[str]
) -> Response:
    outputs, chunks = [], []
    for name, answer in found.items():
        rows: NDArray[np.float32] = np.ascontiguousarray(answer.rows, dtype="<f4")
        tensor: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(rows.shape)}
        if name in binary:
            tensor["parameters"] = {"binary_data_size": rows.nbytes}
            chunks.append(rows.tobytes())
        else:
            tensor["data"] = rows.reshape(-1)
        outputs.append(tensor)
    head: dict[str, Any] = {
        "model_name": manifest.name,
        "model_version": manifest.version,
        "outputs": outputs,
    }
    if body.id is not None:
        head["id"] = body.id
    last = [*found.values()][-1].spent
    if not chunks:
        return json_response(head, last)
    data = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    headers = {**phase_headers(last), _HEADER: str(len(data))}
    return Response(b"".join([data, *chunks]), 200, headers, "application/octet-stream")
