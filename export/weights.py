"""Read a checkpoint into plain arrays, the same for BERT and DistilBERT."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from rubert_lite.errors import InputError

Array = NDArray[np.float32]

# Our name -> the name in each architecture, below its prefix; {i} is the layer.
_TOP = {
    "pieces": ("embeddings.word_embeddings.weight",) * 2,
    "positions": ("embeddings.position_embeddings.weight",) * 2,
    "norm": ("embeddings.LayerNorm",) * 2,
}
_LAYER = {
    "query": ("transformer.layer.{i}.attention.q_lin", "encoder.layer.{i}.attention.self.query"),
    "key": ("transformer.layer.{i}.attention.k_lin", "encoder.layer.{i}.attention.self.key"),
    "value": ("transformer.layer.{i}.attention.v_lin", "encoder.layer.{i}.attention.self.value"),
    "out": ("transformer.layer.{i}.attention.out_lin", "encoder.layer.{i}.attention.output.dense"),
    "norm1": (
        "transformer.layer.{i}.sa_layer_norm",
        "encoder.layer.{i}.attention.output.LayerNorm",
    ),
    "up": ("transformer.layer.{i}.ffn.lin1", "encoder.layer.{i}.intermediate.dense"),
    "down": ("transformer.layer.{i}.ffn.lin2", "encoder.layer.{i}.output.dense"),
    "norm2": ("transformer.layer.{i}.output_layer_norm", "encoder.layer.{i}.output.LayerNorm"),
}
_COLUMN = {"distilbert": 0, "bert": 1}


@dataclass(frozen=True)
class Affine:
    """A weight and its bias: a linear layer's [out, in] and [out], or a norm's [size] each."""

    weight: Array
    bias: Array


@dataclass(frozen=True)
class Layer:
    """One transformer layer."""

    query: Affine
    key: Affine
    value: Affine
    out: Affine
    norm1: Affine
    up: Affine
    down: Affine
    norm2: Affine


@dataclass(frozen=True)
class Weights:
    """An encoder, and perhaps a linear task head on its mean-pooled vector."""

    pieces: Array  # [vocab, hidden]
    positions: Array  # [max length, hidden]
    types: Array | None  # [types, hidden], BERT only
    norm: Affine
    layers: tuple[Layer, ...]
    heads: int
    epsilon: float
    head: Affine | None  # [labels, hidden]

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return int(self.pieces.shape[1])


def read_config(checkpoint: Path) -> dict[str, Any]:
    """Read config.json of a checkpoint; InputError if it is not there, or of another kind."""
    path = checkpoint / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}): expected a checkpoint"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in _COLUMN:
        raise InputError(f"{path}: model type {kind!r}, expected one of {', '.join(_COLUMN)}")
    found: dict[str, Any] = config
    return found


def read_weights(checkpoint: Path) -> Weights:
    """Read model.safetensors, config.json and, if there, head.safetensors of a checkpoint.

    Raises InputError for a missing file or tensor, a pickled checkpoint, or another activation.
    """
    config = read_config(checkpoint)
    column = _COLUMN[config["model_type"]]
    activation = config.get("activation" if column == 0 else "hidden_act", "gelu")
    if activation != "gelu":
        raise InputError(f"{checkpoint}: activation {activation!r}, expected 'gelu'")
    path = checkpoint / "model.safetensors"
    if not path.is_file() and (checkpoint / "pytorch_model.bin").is_file():
        raise InputError(
            f"{checkpoint}: only a pickled pytorch_model.bin: convert it first with transformers'"
            " save_pretrained(..., safe_serialization=True)"
        )
    tensors = _load(path)
    prefix = config["model_type"] + "."
    if not any(name.startswith(prefix) for name in tensors):
        prefix = ""

    def tensor(name: str) -> Array:
        if prefix + name not in tensors:
            raise InputError(f"{path}: no tensor {prefix + name!r}: not a {config['model_type']}")
        return tensors[prefix + name].astype(np.float32, copy=False)

    def affine(name: str) -> Affine:
        return Affine(tensor(f"{name}.weight"), tensor(f"{name}.bias"))

    count = int(config["n_layers" if column == 0 else "num_hidden_layers"])
    layers = tuple(
        Layer(**{key: affine(names[column].format(i=i)) for key, names in _LAYER.items()})
        for i in range(count)
    )
    types = None
    if column == 1 and int(config.get("type_vocab_size", 2)) > 0:
        types = tensor("embeddings.token_type_embeddings.weight")
    head_path = checkpoint / "head.safetensors"
    head = None
    if head_path.is_file():
        found = _load(head_path)
        if set(found) != {"weight", "bias"}:
            raise InputError(f"{head_path}: has {', '.join(found)}, expected weight and bias")
        head = Affine(found["weight"].astype(np.float32), found["bias"].astype(np.float32))
    return Weights(
        pieces=tensor(_TOP["pieces"][column]),
        positions=tensor(_TOP["positions"][column]),
        types=types,
        norm=affine(_TOP["norm"][column]),
        layers=layers,
        heads=int(config["n_heads" if column == 0 else "num_attention_heads"]),
        # DistilBERT's norms have this constant in code, BERT's in the configuration.
        epsilon=1e-12 if column == 0 else float(config.get("layer_norm_eps", 1e-12)),
        head=head,
    )


def _load(path: Path) -> Mapping[str, NDArray[Any]]:
    try:
        tensors: Mapping[str, NDArray[Any]] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    return tensors
