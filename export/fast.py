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
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rubert_lite.manifest import PIECEWISE

from .quantize import quantize_rows
from .weights import Affine, Layer, Weights

Precision = Literal["fp32", "int8", "int8-turbo"]

_OPSET = 17
_CONTRIB = "com.microsoft"
_IR_VERSION = 9  # the oldest that these operators need: more runtimes can read it
_TINY = 1e-12  # floor of a norm or scale that divides


class _Graph:
    """Collect nodes and constants under running names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def add(self, kind: str, inputs: Sequence[str], *, outputs: int = 1, **attributes: Any) -> Any:
        """Append a node; return the name of its output, or names if there are several."""
        contrib = kind.startswith("ms.")
        number = len(self.nodes)
        names = [f"{kind.removeprefix('ms.')}_{number}_{i}" for i in range(outputs)]
        self.nodes.append(
            helper.make_node(
                kind.removeprefix("ms."),
                list(inputs),
                names,
                name=f"{kind}_{number}",
                domain=_CONTRIB if contrib else "",
                **attributes,
            )
        )
        return names[0] if outputs == 1 else names

    def constant(self, value: Any, name: str) -> str:
        """Keep an array under a name; equal names are the same array."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def rename(self, old: str, new: str) -> None:
        """Give an output its public name."""
        self.nodes.append(helper.make_node("Identity", [old], [new], name=new))


def build(
    weights: Weights, *, precision: Precision, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Build the graph.

    Inputs: input_ids int64 [batch, length] and, for a BERT with several token types,
    token_type_ids. Outputs: pooled and sentence_embedding float32 [batch, hidden]; with a
    head logits [batch, labels], or [batch, length, labels] of a task on pieces.
    """
    graph = _Graph()
    inputs = ["input_ids"]
    if weights.types is not None and len(weights.types) > 1:
        inputs.append("token_type_ids")
    hidden = _embed(graph, weights, precision, inputs)
    for index, layer in enumerate(weights.layers):
        hidden = _attend(graph, hidden, layer, f"layer{index}", weights, precision)
        hidden = _feed_forward(graph, hidden, layer, f"layer{index}", weights, precision)
    outputs = _finish(graph, hidden, weights)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "rubert_lite",
            [_value(name, TensorProto.INT64, ["batch", "length"]) for name in inputs],
            [_value(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            list(graph.constants.values()),
        ),
        opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)],
        ir_version=_IR_VERSION,
        producer_name="rubert_lite",
    )
    helper.set_model_props(model, dict(metadata))
    return model


def _value(name: str, kind: int, shape: Sequence[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def _embed(graph: _Graph, weights: Weights, precision: Precision, inputs: Sequence[str]) -> str:
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
    graph: _Graph, table: NDArray[np.float32], name: str, ids: str, precision: Precision
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


def _norm(graph: _Graph, value: str, norm: Affine, name: str, epsilon: float) -> str:
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


def _linear(graph: _Graph, value: str, layer: Affine, name: str, precision: Precision) -> str:
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
    tiny = graph.constant(np.float32(_TINY), "tiny")
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
    graph: _Graph, hidden: str, layer: Layer, name: str, weights: Weights, precision: Precision
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
    graph: _Graph, hidden: str, layer: Layer, name: str, weights: Weights, precision: Precision
) -> str:
    wide = graph.add("ms.Gelu", [_linear(graph, hidden, layer.up, f"{name}.up", precision)])
    out = _linear(graph, wide, layer.down, f"{name}.down", precision)
    total = graph.add("Add", [out, hidden])
    return _norm(graph, total, layer.norm2, f"{name}.norm2", weights.epsilon)


def _finish(graph: _Graph, hidden: str, weights: Weights) -> dict[str, list[str | int]]:
    pooled = graph.add("ReduceMean", [hidden], axes=[1], keepdims=0)
    length = graph.add("ReduceL2", [pooled], axes=[-1], keepdims=1)
    floor = graph.constant(np.float32(_TINY), "tiny")
    unit = graph.add("Div", [pooled, graph.add("Max", [length, floor])])
    graph.rename(pooled, "pooled")
    graph.rename(unit, "sentence_embedding")
    width = weights.hidden_size
    outputs: dict[str, list[str | int]] = {
        "pooled": ["batch", width],
        "sentence_embedding": ["batch", width],
    }
    if weights.head is not None:
        on_pieces = weights.task in PIECEWISE
        # In float32: it is small, and a label should not turn on rounding.
        judged = hidden if on_pieces else pooled
        graph.rename(_linear(graph, judged, weights.head, "head", "fp32"), "logits")
        labels = len(weights.head.bias)
        outputs["logits"] = ["batch", "length", labels] if on_pieces else ["batch", labels]
    return outputs
