"""Our graph for CUDA: float16, padded rows with their lengths, the provider's fused kernels.

A GPU would rather have one padded batch than many exact ones; Attention, SkipLayerNormalization and
BiasGelu are the operators that onnxruntime's CUDA provider has fused kernels for. Norms, softmax
and pooling are computed in float32 inside. The CPU provider runs the same graph through casts:
slowly, but so that it can be checked without a GPU.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto

from .graph import Graph, Shape, finish_outputs
from .tensors import Array
from .weights import Affine, Layer, Weights

_HALF_MAX = 65504.0


def build_gpu(weights: Weights, *, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Build the graph.

    Inputs: input_ids int64 [batch, length], padded at the end with any id; lengths int64 [batch],
    the real pieces of each row; token_type_ids for a BERT with several token types. Outputs as of
    `export.fast.build`; rows of `logits` past the length of a text mean nothing.
    """
    graph = Graph()
    inputs: dict[str, Shape] = {"input_ids": ["batch", "length"], "lengths": ["batch"]}
    typed = weights.types is not None and len(weights.types) > 1
    if typed:
        inputs["token_type_ids"] = ["batch", "length"]
    hidden = _embed(graph, weights, typed=typed)
    lengths = graph.add("Cast", ["lengths"], to=TensorProto.INT32)
    for index, layer in enumerate(weights.layers):
        hidden = _layer(graph, hidden, lengths, layer, f"layer{index}", weights)
    states = graph.add("Cast", [hidden], to=TensorProto.FLOAT)
    real = _real(graph, most=len(weights.positions))
    sums = ""
    if weights.turn.lexical is not None:
        rows = graph.add("Gather", [_half(graph, weights.turn.lexical, "lexical"), "input_ids"])
        sums = _sum(graph, graph.add("Cast", [rows], to=TensorProto.FLOAT), real)
    counted = graph.add("Cast", [_column(graph)], to=TensorProto.FLOAT)
    pooled = graph.add("Div", [_sum(graph, states, real), counted])
    outputs = finish_outputs(graph, states, pooled, weights, sums=sums)
    return graph.finish(inputs, outputs, metadata)


def _half(graph: Graph, values: Array, name: str) -> str:
    # What is out of range would become infinite and poison every text.
    return graph.constant(np.clip(values, -_HALF_MAX, _HALF_MAX).astype(np.float16), name)


def _embed(graph: Graph, weights: Weights, *, typed: bool) -> str:
    rows = graph.add("Gather", [_half(graph, weights.pieces, "pieces"), "input_ids"], axis=0)
    positions = weights.positions
    if weights.types is not None and not typed:
        positions = positions + weights.types[0]
    total = graph.add("Add", [rows, _first(graph, _half(graph, positions, "positions"))])
    if typed and weights.types is not None:
        kinds = _half(graph, weights.types, "types")
        total = graph.add("Add", [total, graph.add("Gather", [kinds, "token_type_ids"], axis=0)])
    norm = [_half(graph, v, f"norm.{n}") for n, v in vars(weights.norm).items()]
    found: str = graph.add("LayerNormalization", [total, *norm], axis=-1, epsilon=weights.epsilon)
    return found


def _layer(
    graph: Graph, hidden: str, lengths: str, layer: Layer, name: str, weights: Weights
) -> str:
    parts = (layer.query, layer.key, layer.value)
    weight = _half(graph, np.concatenate([p.weight for p in parts]).T, f"{name}.qkv.weight")
    bias = _half(graph, np.concatenate([p.bias for p in parts]), f"{name}.qkv.bias")
    mixed = graph.add("ms.Attention", [hidden, weight, bias, lengths], num_heads=weights.heads)
    hidden = _join(graph, mixed, hidden, layer.out, layer.norm1, f"{name}.out", weights.epsilon)
    wide = _product(graph, hidden, layer.up, f"{name}.up")
    wide = graph.add("ms.BiasGelu", [wide, _half(graph, layer.up.bias, f"{name}.up.bias")])
    return _join(graph, wide, hidden, layer.down, layer.norm2, f"{name}.down", weights.epsilon)


def _product(graph: Graph, value: str, layer: Affine, name: str) -> str:
    weight = _half(graph, np.ascontiguousarray(layer.weight.T), f"{name}.weight")
    found: str = graph.add("MatMul", [value, weight])
    return found


def _join(
    graph: Graph, value: str, skip: str, layer: Affine, norm: Affine, name: str, epsilon: float
) -> str:
    """Return norm(value @ weight + bias + skip)."""
    parts = [
        _product(graph, value, layer, name),
        skip,
        _half(graph, norm.weight, f"{name}.norm.weight"),
        _half(graph, norm.bias, f"{name}.norm.bias"),
        _half(graph, layer.bias, f"{name}.bias"),
    ]
    found: str = graph.add("ms.SkipLayerNormalization", parts, epsilon=epsilon)
    return found


def _first(graph: Graph, table: str) -> str:
    """Return as many rows of a table as a text has pieces."""
    shape = graph.add("Shape", ["input_ids"], start=1, end=2)
    zero = graph.constant(np.array([0], np.int64), "zero")
    found: str = graph.add("Slice", [table, zero, shape, zero])
    return found


def _column(graph: Graph) -> str:
    """Return the lengths as [batch, 1]."""
    last = graph.constant(np.array([1], np.int64), "last")
    found: str = graph.add("Unsqueeze", ["lengths", last])
    return found


def _real(graph: Graph, *, most: int) -> str:
    """Return 1 for the real pieces of each row and 0 for padding, [batch, length, 1]."""
    # Cut from a constant: a Range would be made on the CPU, and copies bar CUDA graphs.
    every = graph.constant(np.arange(most, dtype=np.int64), "places")
    places = _first(graph, every)
    real = graph.add("Cast", [graph.add("Less", [places, _column(graph)])], to=TensorProto.FLOAT)
    axis = graph.constant(np.array([2], np.int64), "axis2")
    found: str = graph.add("Unsqueeze", [real, axis])
    return found


def _sum(graph: Graph, values: str, real: str) -> str:
    """Return the sum [batch, D] of values [batch, length, D] over the real pieces of each row."""
    last = graph.constant(np.array([1], np.int64), "last")
    found: str = graph.add("ReduceSum", [graph.add("Mul", [values, real]), last], keepdims=0)
    return found
