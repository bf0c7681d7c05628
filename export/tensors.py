"""Files of a checkpoint, checked: JSON objects, and tensors of a known shape."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (teaches numpy bfloat16; a dependency of onnx)
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from rubert_lite.errors import InputError

Array = NDArray[np.float32]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; InputError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}): expected a checkpoint"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: a JSON {type(found).__name__}, expected an object")
    return found


def load_tensors(path: Path) -> Mapping[str, NDArray[Any]]:
    """Read a file of safetensors; InputError for what cannot be read, or is no number."""
    try:
        tensors: Mapping[str, NDArray[Any]] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except (AttributeError, KeyError, TypeError) as error:  # numbers that numpy does not know
        raise InputError(
            f"{path}: {error}: expected float32, float16 or bfloat16: save it with model.float()"
        ) from error
    return tensors


def checked(value: NDArray[Any], shape: tuple[int, ...], where: str) -> Array:
    """Return a tensor in float32; InputError for another shape, or numbers that are not finite."""
    if value.shape != shape:
        raise InputError(f"{where} has shape {list(value.shape)}, expected {list(shape)}")
    found: Array = value.astype(np.float32, copy=False)
    if not np.isfinite(found).all():
        raise InputError(
            f"{where} is not finite: the training diverged, take an earlier checkpoint"
        )
    return found
