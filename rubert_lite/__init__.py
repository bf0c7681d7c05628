"""Encode and classify Russian text with small distilled BERT students: no torch, no network.

>>> from rubert_lite import load
>>> load("distil-16k").encode(["Привет, мир"]).shape
(1, 256)
"""

import os

from .engine import Device
from .errors import (
    ConfigError,
    InputError,
    ModelNotFound,
    PackageError,
    ProviderError,
    RubertLiteError,
)
from .loading import load_model
from .locate import available_models
from .locate import locate as _locate  # the plain name would hide the module
from .model import Model
from .predictions import Answer, Entity, Prediction

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "ConfigError",
    "Entity",
    "InputError",
    "Model",
    "ModelNotFound",
    "PackageError",
    "Prediction",
    "ProviderError",
    "RubertLiteError",
    "available_models",
    "load",
]


def load(
    name_or_path: str | os.PathLike[str],
    *,
    variant: str | None = None,
    device: Device = "cpu",
    lanes: int | None = None,
    verify: bool = True,
) -> Model:
    """Load a model by name ("distil-16k"), directory, or hub id ("owner/name@revision").

    `variant` chooses a graph of the package ("int8", "fp32"), `lanes` the number of threads
    (default: the CPUs this process may use). `verify` checks the SHA-256 of every file. Raises
    ModelNotFound, PackageError, ProviderError.
    """
    return load_model(
        _locate(name_or_path), variant=variant, device=device, lanes=lanes, verify=verify
    )
