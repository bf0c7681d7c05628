"""Turn a package back into a checkpoint: for other variants, and for tuning what was shipped.

Weights of a quantised graph come back as what the graph computes with: rounded, a little off those
that were trained, and the same vectors.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.numpy import save_file

from rubert_lite.errors import InputError
from rubert_lite.manifest import Manifest
from rubert_lite.package import ModelPackage

from .quantize import dequantize_blocks, dequantize_rows
from .tensors import Array
from .turn import AXES, LEXICAL
from .weights import Affine, Layer, name_tensors, read_config

# The best first; the weights of int8-turbo are those of int8.
_SOURCES = ("fp32", "int8", "int8-turbo", "int8-static", "int4", "int4-static")


_WEIGHTS = "model.safetensors"
_EXTRAS = ("LICENSE", "vocabulary.json")


def unpack(package: ModelPackage, out: Path) -> None:
    """Write a checkpoint into the empty folder `out`, by its weights or else by its best graph.

    Raises InputError for a package that has neither weights nor a graph they can be read from.
    """
    manifest = package.manifest
    for name in ("config.json", "tokenizer.json", *_EXTRAS):
        if name in manifest.files or name not in _EXTRAS:
            shutil.copyfile(package.file(name), out / name)
    training = dict(manifest.provenance)
    variant = next((v for v in _SOURCES if v in manifest.variants), None)
    if variant is not None:
        graph = onnx.load_model_from_string(package.file(manifest.variants[variant]).read_bytes())
        values = {i.name: numpy_helper.to_array(i) for i in graph.graph.initializer}
        _write(values, out, manifest)
    elif _WEIGHTS not in manifest.files or manifest.labels:  # a head is in graphs alone
        raise InputError(
            f"{package.path}: variants {', '.join(manifest.variants)}: weights can be read from"
            f" {', '.join(_SOURCES)}"
        )
    if _WEIGHTS in manifest.files:  # as they were trained
        for name in (_WEIGHTS, AXES, LEXICAL):
            if name in manifest.files:
                shutil.copyfile(package.file(name), out / name)
    elif variant != "fp32":
        training["weights"] = f"read from the graph {variant} of {manifest.name}, rounded as it is"
    text = json.dumps(training, ensure_ascii=False, indent=1) + "\n"
    (out / "training.json").write_text(text, encoding="utf-8")


def _write(values: Mapping[str, NDArray[np.generic]], out: Path, manifest: Manifest) -> None:
    config = read_config(out)
    count = sum(name.endswith(".norm2.weight") for name in values)
    layers = tuple(_layer(values, f"layer{i}") for i in range(count))
    pieces = _rows(values, "pieces")
    types = values.get("types")
    if types is None and config["model_type"] == "bert":
        # The only type of every piece is inside the positions.
        types = np.zeros((config["type_vocab_size"], pieces.shape[1]), np.float32)
    tensors = name_tensors(
        config["model_type"],
        pieces=pieces,
        positions=_float(values, "positions"),
        types=None if types is None else types.astype(np.float32),
        norm=_norm(values, "embeddings.norm"),
        layers=layers,
    )
    save_file(tensors, out / _WEIGHTS, metadata={"format": "pt"})
    if "axes" in values:
        axes = np.ascontiguousarray(values["axes"].T)
        save_file({"weight": axes}, out / AXES)
    if any(name.startswith("lexical") for name in values):
        save_file({"weight": _rows(values, "lexical")}, out / LEXICAL)
    if "head.weight" in values:
        head = {
            "weight": np.ascontiguousarray(_float(values, "head.weight").T),
            "bias": _float(values, "head.bias"),
        }
        save_file(head, out / "head.safetensors")


def _layer(values: Mapping[str, NDArray[np.generic]], name: str) -> Layer:
    fused = _linear(values, f"{name}.qkv")
    weights, biases = np.split(fused.weight, 3), np.split(fused.bias, 3)
    query, key, value = (Affine(w, b) for w, b in zip(weights, biases, strict=True))
    return Layer(
        query,
        key,
        value,
        _linear(values, f"{name}.out"),
        _norm(values, f"{name}.norm1"),
        _linear(values, f"{name}.up"),
        _linear(values, f"{name}.down"),
        _norm(values, f"{name}.norm2"),
    )


def _linear(values: Mapping[str, NDArray[np.generic]], name: str) -> Affine:
    bias = _float(values, f"{name}.bias")
    if f"{name}.weight" in values:
        return Affine(np.ascontiguousarray(_float(values, f"{name}.weight").T), bias)
    stored = values[f"{name}.int8"].astype(np.int8).T
    scale = _float(values, f"{name}.scale")[:, None]
    weight = dequantize_rows(stored, scale)
    if f"{name}.smooth" in values:  # of a static graph: what its input is multiplied by
        weight *= _float(values, f"{name}.smooth")
    # Between the values and `out` of a static graph channels are scaled and scaled back: together
    # they are what they were, so both stay as they are.
    return Affine(np.ascontiguousarray(weight), bias)


def _rows(values: Mapping[str, NDArray[np.generic]], name: str) -> Array:
    if name in values:
        return _float(values, name)
    if f"{name}.int4" in values:
        packed, scale = values[f"{name}.int4"], values[f"{name}.scale"]
        return dequantize_blocks(packed.astype(np.uint8), scale.astype(np.float16))
    return dequantize_rows(values[f"{name}.int8"].astype(np.int8), _float(values, f"{name}.scale"))


def _norm(values: Mapping[str, NDArray[np.generic]], name: str) -> Affine:
    return Affine(_float(values, f"{name}.weight"), _float(values, f"{name}.bias"))


def _float(values: Mapping[str, NDArray[np.generic]], name: str) -> Array:
    if name not in values:
        raise InputError(f"the graph has no {name!r}: was it made by another version?")
    return values[name].astype(np.float32)
