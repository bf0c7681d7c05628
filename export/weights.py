"""Read a checkpoint into plain arrays, the same for BERT and DistilBERT."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rubert_lite.errors import InputError
from rubert_lite.manifest import TASKS

from .tensors import Array, checked, load_tensors, read_json
from .turn import Turn, read_turn

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
_SIZES = {
    "vocabulary": ("vocab_size", "vocab_size"),
    "hidden": ("dim", "hidden_size"),
    "inner": ("hidden_dim", "intermediate_size"),
    "layers": ("n_layers", "num_hidden_layers"),
    "heads": ("n_heads", "num_attention_heads"),
    "positions": ("max_position_embeddings", "max_position_embeddings"),
    "types": ("", "type_vocab_size"),
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
    """An encoder, and perhaps a linear task head on its mean-pooled vector, or on each piece."""

    pieces: Array  # [vocab, hidden]
    positions: Array  # [max length, hidden]
    types: Array | None  # [types, hidden], BERT only
    norm: Affine
    layers: tuple[Layer, ...]
    heads: int
    epsilon: float
    head: Affine | None  # [labels, hidden]
    turn: Turn = Turn()
    task: str = "embedding"  # one of rubert_lite.manifest.TASKS

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return int(self.pieces.shape[1])

    @property
    def width(self) -> int:
        """Width of the vectors: that of the states, unless axes make others of them."""
        return self.hidden_size if self.turn.axes is None else len(self.turn.axes)


def read_config(checkpoint: Path) -> dict[str, Any]:
    """Read config.json of a checkpoint; InputError if it is not there, or of another kind."""
    config = read_json(checkpoint / "config.json")
    kind = config.get("model_type")
    if kind not in _COLUMN:
        raise InputError(
            f"{checkpoint / 'config.json'}: model type {kind!r}, expected one of"
            f" {', '.join(_COLUMN)}"
        )
    return config


def read_weights(checkpoint: Path) -> Weights:
    """Read model.safetensors, config.json and what is there of head and turn.

    Raises InputError for a missing file or tensor, a shape that config.json does not say, numbers
    that are not finite, a pickled checkpoint, and kinds that our graph does not compute.
    """
    config = read_config(checkpoint)
    column = _COLUMN[config["model_type"]]
    _check_kind(checkpoint, config, column)
    path = checkpoint / "model.safetensors"
    tensors = read_tensors(checkpoint)
    prefix = config["model_type"] + "."
    if not any(name.startswith(prefix) for name in tensors):
        prefix = ""

    def tensor(name: str, *shape: int) -> Array:
        if prefix + name not in tensors:
            raise InputError(f"{path}: no tensor {prefix + name!r}: not a {config['model_type']}")
        return checked(tensors[prefix + name], shape, f"{path}: {prefix + name}")

    def affine(name: str, *shape: int) -> Affine:
        return Affine(tensor(f"{name}.weight", *shape), tensor(f"{name}.bias", shape[0]))

    names = {ours: keys[column] for ours, keys in _SIZES.items() if keys[column]}
    sizes = {ours: _size(checkpoint, config, key) for ours, key in names.items()}
    width, heads = sizes["hidden"], sizes["heads"]
    if width % heads:
        raise InputError(f"{checkpoint}: hidden size {width} is no multiple of {heads} heads")
    shapes = dict.fromkeys(_LAYER, (width, width)) | {"norm1": (width,), "norm2": (width,)}
    shapes |= {"up": (sizes["inner"], width), "down": (width, sizes["inner"])}
    layers = tuple(
        Layer(
            **{k: affine(pair[column].format(i=i), *shapes[k]) for k, pair in _LAYER.items()},
        )
        for i in range(sizes["layers"])
    )
    types = None
    if column == 1:
        types = tensor("embeddings.token_type_embeddings.weight", sizes["types"], width)
    return Weights(
        pieces=tensor(_TOP["pieces"][column], sizes["vocabulary"], width),
        positions=tensor(_TOP["positions"][column], sizes["positions"], width),
        types=types,
        norm=affine(_TOP["norm"][column], width),
        layers=layers,
        heads=heads,
        # DistilBERT's norms have this constant in code, BERT's in the configuration.
        epsilon=1e-12 if column == 0 else float(config.get("layer_norm_eps", 1e-12)),
        head=_read_head(checkpoint / "head.safetensors", width),
        turn=read_turn(checkpoint, width, sizes["vocabulary"]),
        task=read_task(checkpoint),
    )


def name_tensors(
    kind: str,
    *,
    pieces: Array,
    positions: Array,
    types: Array | None,
    norm: Affine,
    layers: Sequence[Layer],
) -> dict[str, Array]:
    """Return the tensors of an encoder by the names of a checkpoint of `kind`."""
    column = _COLUMN[kind]
    found = {_TOP["pieces"][column]: pieces, _TOP["positions"][column]: positions}
    if types is not None:
        found["embeddings.token_type_embeddings.weight"] = types
    parts = {_TOP["norm"][column]: norm}
    for index, layer in enumerate(layers):
        parts |= {pair[column].format(i=index): getattr(layer, k) for k, pair in _LAYER.items()}
    for name, part in parts.items():
        found |= {f"{name}.weight": part.weight, f"{name}.bias": part.bias}
    return {f"{kind}.{name}": np.ascontiguousarray(value) for name, value in found.items()}


def read_task(checkpoint: Path) -> str:
    """Return the task of a checkpoint: `finetuning_task` in config.json says what its head does."""
    if not (checkpoint / "head.safetensors").is_file():
        return "embedding"
    found = read_config(checkpoint).get("finetuning_task") or "classification"
    if found not in TASKS[1:]:
        raise InputError(
            f"{checkpoint / 'config.json'}: finetuning_task {found!r}, expected one of"
            f" {', '.join(TASKS[1:])}"
        )
    return str(found)


def read_tensors(checkpoint: Path) -> Mapping[str, NDArray[Any]]:
    """Read model.safetensors as it stands; InputError for other ways to keep weights."""
    path = checkpoint / "model.safetensors"
    for other, what in (
        ("pytorch_model.bin", "a pickled pytorch_model.bin"),
        ("model.safetensors.index.json", "weights in several files"),
    ):
        if not path.is_file() and (checkpoint / other).is_file():
            raise InputError(
                f"{checkpoint}: only {what}: convert it first with transformers'"
                " save_pretrained(..., safe_serialization=True)"
            )
    return load_tensors(path)


def _check_kind(checkpoint: Path, config: Mapping[str, Any], column: int) -> None:
    """Refuse what our graph does not compute."""
    for key, wanted in (
        ("activation" if column == 0 else "hidden_act", "gelu"),
        ("position_embedding_type", "absolute"),
        ("is_decoder", False),
    ):
        if config.get(key, wanted) != wanted:
            raise InputError(f"{checkpoint}: {key} {config[key]!r}, expected {wanted!r}")


def _size(checkpoint: Path, config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise InputError(f"{checkpoint / 'config.json'}: {key} = {value!r}, expected a size")
    return value


def _read_head(path: Path, width: int) -> Affine | None:
    if not path.is_file():
        return None
    found = load_tensors(path)
    if set(found) != {"weight", "bias"}:
        raise InputError(f"{path}: has {', '.join(found)}, expected weight and bias")
    labels = len(found["bias"]) if found["bias"].ndim else 0
    return Affine(
        checked(found["weight"], (labels, width), f"{path}: weight"),
        checked(found["bias"], (labels,), f"{path}: bias"),
    )
