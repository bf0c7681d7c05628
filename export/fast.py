"""Our own graph: from equal-length rows of ids to pooled and normalised vectors, for the CPU
provider.

Hand-built because the usual optimiser inserts slow fused nodes there. No mask and no padding; q, k
and v are one product; Add + LayerNormalization, which is 5-8 times as fast as
SkipLayerNormalization on a CPU. In int8 the table keeps a scale for each row, the weights one for
each output, and activations one for each piece: so no text's vector depends on another text of the
batch. int8-turbo has one for all activations of a batch instead: faster, but a vector then depends
a little on its neighbours.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from .graph import TINY, Graph, Shape, finish_outputs
from .quantize import quantize_rows
from .weights import Affine, Layer, Weights

Precision = Literal["fp32", "int8", "int8-turbo"]


def build(
    weights: Weights, *, precision: Precision, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Build the graph.

    Inputs: input_ids int64 [batch, length] and, for a BERT with several token types,
    token_type_ids. Outputs: pooled and sentence_embedding float32 [batch, hidden]; with a
    head logits [batch, labels], or [batch, length, labels] of a task on pieces.
    """
    graph = Graph()
    inputs: dict[str, Shape] = {"input_ids": ["batch", "length"]}
    if weights.types is not None and len(weights.types) > 1:
        inputs["token_type_ids"] = ["batch", "length"]
    hidden = _embed(graph, weights, precision, list(inputs))
    for index, layer in enumerate(weights.layers):
        hidden = _attend(graph, hidden, layer, f"layer{index}", weights, precision)
        hidden = _feed_forward(graph, hidden, layer, f"layer{index}", weights, precision)
    pooled = graph.add("ReduceMean", [hidden], axes=[1], keepdims=0)
    outputs = finish_outputs(graph, hidden, pooled, weights)
    return graph.finish(inputs, outputs, metadata)


def _embed(graph: Graph, weights: Weights, precision: Precision, inputs: Sequence[str]) -> str:
    rows = _rows(graph, weights.pieces, "pieces", inputs[0], precision)
    positions = weights.positions
    if weights.types is not None and len(inputs) == 1:
        positions = positions + weights.types[0]  # the only type of every piece
    # The first `length` positions; they are few, and stay in float32.
    shape = graph.add("Shape", [inputs[0]], start=1, end=2)
    table = graph.constant(positions, "positions")
    zero = graph.constant(np.array([0], np.int64), "zero")
    first = graph.add("Slice", [table, zero, shape, zero])
    total = graph.add("Add", [rows, first])
    if len(inputs) > 1:
        kinds = graph.constant(weights.types, "types")
        total = graph.add("Add", [total, graph.add("Gather", [kinds, inputs[1]], axis=0)])
    return _norm(graph, total, weights.norm, "embeddings.norm", weights.epsilon)


def _rows(
    graph: Graph, table: NDArray[np.float32], name: str, ids: str, precision: Precision
) -> str:
    if precision == "fp32":
        found: str = graph.add("Gather", [graph.constant(table, name), ids], axis=0)
        return found
    values, scale = quantize_rows(table)
    small = graph.add("Gather", [graph.constant(values, f"{name}.int8"), ids], axis=0)
    wide = graph.add("Cast", [small], to=TensorProto.FLOAT)
    scales = graph.add("Gather", [graph.constant(scale, f"{name}.scale"), ids], axis=0)
    product: str = graph.add("Mul", [wide, scales])
    return product


def _norm(graph: Graph, value: str, norm: Affine, name: str, epsilon: float) -> str:
    found: str = graph.add(
        "LayerNormalization",
        [
            value,
            graph.constant(norm.weight, f"{name}.weight"),
            graph.constant(norm.bias, f"{name}.bias"),
        ],
        axis=-1,
        epsilon=epsilon,
    )
    return found


def _linear(graph: Graph, value: str, layer: Affine, name: str, precision: Precision) -> str:
    bias = graph.constant(layer.bias, f"{name}.bias")
    if precision == "fp32":
        weight = graph.constant(np.ascontiguousarray(layer.weight.T), f"{name}.weight")
        whole: str = graph.add("Add", [graph.add("MatMul", [value, weight]), bias])
        return whole
    values, scale = quantize_rows(layer.weight)
    if precision == "int8-turbo":
        stored = graph.constant(np.ascontiguousarray(values.T), f"{name}.int8")
        scales = graph.constant(scale[:, 0], f"{name}.scale")
        fused: str = graph.add("ms.DynamicQuantizeMatMul", [value, stored, scales, "", bias])
        return fused
    # Unsigned activations around 128: signed ones miss the fast kernels. One scale a piece, its
    # peak / 127; the peak is divided out before the product and multiplied in after it.
    tiny = graph.constant(np.float32(TINY), "tiny")
    highest = graph.add("ReduceMax", [graph.add("Abs", [value])], axes=[-1], keepdims=1)
    peak = graph.add("Max", [highest, tiny])
    level = graph.constant(np.float32(1 / 127), "level")
    middle = graph.constant(np.uint8(128), "middle")
    small = graph.add("QuantizeLinear", [graph.add("Div", [value, peak]), level, middle])
    product = graph.add(
        "ms.MatMulIntegerToFloat",
        [
            small,
            graph.constant(np.ascontiguousarray(values.T), f"{name}.int8"),
            level,
            graph.constant(scale[:, 0], f"{name}.scale"),
            middle,
        ],
    )
    scaled: str = graph.add("Add", [graph.add("Mul", [product, peak]), bias])
    return scaled


def _attend(
    graph: Graph, hidden: str, layer: Layer, name: str, weights: Weights, precision: Precision
) -> str:
    parts = (layer.query, layer.key, layer.value)
    fused = Affine(
        np.concatenate([p.weight for p in parts]), np.concatenate([p.bias for p in parts])
    )
    together = _linear(graph, hidden, fused, f"{name}.qkv", precision)
    size = weights.hidden_size
    sizes = graph.constant(np.array([size] * 3, np.int64), "qkv.sizes")
    query, key, value = graph.add("Split", [together, sizes], outputs=3, axis=-1)
    mixed = graph.add("ms.MultiHeadAttention", [query, key, value], num_heads=weights.heads)
    out = _linear(graph, mixed, layer.out, f"{name}.out", precision)
    total = graph.add("Add", [out, hidden])
    return _norm(graph, total, layer.norm1, f"{name}.norm1", weights.epsilon)


def _feed_forward(
    graph: Graph, hidden: str, layer: Layer, name: str, weights: Weights, precision: Precision
) -> str:
    wide = graph.add("ms.Gelu", [_linear(graph, hidden, layer.up, f"{name}.up", precision)])
    out = _linear(graph, wide, layer.down, f"{name}.down", precision)
    total = graph.add("Add", [out, hidden])
    return _norm(graph, total, layer.norm2, f"{name}.norm2", weights.epsilon)
