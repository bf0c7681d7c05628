"""Our own graph: from equal-length rows of ids to pooled and normalised vectors, for the CPU
provider.

Hand-built because the usual optimiser inserts slow fused nodes there. No mask and no padding; q, k
and v are one product; Add + LayerNormalization, which is 5-8 times as fast as
SkipLayerNormalization on a CPU. In int8 the table keeps a scale for each row, the weights one for
each output, and activations one for each piece: so no text's vector depends on another text of the
batch. int8-turbo has one for all activations of a batch instead: faster, but a vector then depends
a little on its neighbours. int8-static has constants from the peaks of sample texts where peaks
differ little between pieces (all but the product after Gelu): faster, and nothing depends on
neighbours. There the channels are brought to one size first, and the weights take up what that
changes (SmoothQuant, arXiv 2211.10438). int4 and int4-static are the same with the table of pieces
in 4 bits, two numbers a byte: it is most of a small student.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tqdm import tqdm

from rubert_lite.quiet import import_onnxruntime

from .graph import Graph, Shape, finish_outputs
from .quantize import quantize_blocks, quantize_rows
from .turn import TINY
from .weights import Affine, Layer, Weights

Precision = Literal["fp32", "int8", "int8-turbo", "int8-static", "int4", "int4-static"]
Peaks = Mapping[str, NDArray[np.float32]]  # product -> the largest |x| of each input channel

_GELU_LOWEST = np.float32(0.17)  # its minimum is -0.16997, at -0.7518
_MARGIN = 1.3  # over the peaks of the sample: other texts may go a little further


@dataclass(frozen=True)
class _Style:
    """How products are computed."""

    precision: Precision
    peaks: Peaks

    def static(self, name: str) -> bool:
        """Whether the input of a product has a constant scale; after Gelu some pieces are huge."""
        return self.precision.endswith("-static") and not name.endswith(".down")

    def smooth(self, name: str) -> NDArray[np.float32]:
        """Return what the channels of a product's input are divided by, to at most 1."""
        found: NDArray[np.float32] = np.maximum(self.peaks[name] * _MARGIN, 1e-5).astype(np.float32)
        return found


def build(
    weights: Weights,
    *,
    precision: Precision,
    metadata: Mapping[str, str],
    peaks: Peaks | None = None,
) -> onnx.ModelProto:
    """Build the graph; the static ones need `peaks`, see `measure_peaks`.

    Inputs: input_ids int64 [batch, length] and, for a BERT with several token types,
    token_type_ids. Outputs: pooled and sentence_embedding float32 [batch, hidden]; with a
    head logits [batch, labels], or [batch, length, labels] of a task on pieces.
    """
    graph = Graph()
    style = _Style(precision, peaks or {})
    inputs: dict[str, Shape] = {"input_ids": ["batch", "length"]}
    if weights.types is not None and len(weights.types) > 1:
        inputs["token_type_ids"] = ["batch", "length"]
    hidden = _embed(graph, weights, precision, list(inputs))
    for index, layer in enumerate(weights.layers):
        hidden = _attend(graph, hidden, layer, f"layer{index}", weights, style)
        hidden = _feed_forward(graph, hidden, layer, f"layer{index}", weights, style)
    pooled = graph.add("ReduceMean", [hidden], axes=[1], keepdims=0)
    sums = ""
    if weights.turn.lexical is not None:
        rows = _rows(graph, weights.turn.lexical, "lexical", "input_ids", precision)
        axis = graph.constant(np.array([1], np.int64), "axis1")
        sums = graph.add("ReduceSum", [rows, axis], keepdims=0)
    outputs = finish_outputs(graph, hidden, pooled, weights, sums=sums)
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
    if precision.startswith("int4"):
        return _rows_of_blocks(graph, table, name, ids)
    values, scale = quantize_rows(table)
    small = graph.add("Gather", [graph.constant(values, f"{name}.int8"), ids], axis=0)
    wide = graph.add("Cast", [small], to=TensorProto.FLOAT)
    scales = graph.add("Gather", [graph.constant(scale, f"{name}.scale"), ids], axis=0)
    product: str = graph.add("Mul", [wide, scales])
    return product


def _rows_of_blocks(graph: Graph, table: NDArray[np.float32], name: str, ids: str) -> str:
    """Take rows out of 4-bit blocks by plain nodes: GatherBlockQuantized took 4-14 times as long.

    (16 to 512 pieces of 256 numbers, onnxruntime 1.31, one thread.)
    """
    packed, scale = quantize_blocks(table)
    _, blocks, _ = scale.shape
    both = graph.add("Gather", [graph.constant(packed, f"{name}.int4"), ids], axis=0)
    half = graph.constant(np.uint8(4), "half")
    high = graph.add("BitShift", [both, half], direction="RIGHT")
    # Out of the byte and back: opset 17 has no bitwise and.
    low = graph.add("BitShift", [both, half], direction="LEFT")
    low = graph.add("BitShift", [low, half], direction="RIGHT")
    codes = graph.add("Cast", [graph.add("Concat", [low, high], axis=-1)], to=TensorProto.FLOAT)
    levels = graph.add("Sub", [codes, graph.constant(np.float32(8), "middle4")])
    apart = graph.constant(np.array([0, 0, blocks, -1], np.int64), f"{name}.blocks")
    scales = graph.add("Gather", [graph.constant(scale, f"{name}.scale"), ids], axis=0)
    scales = graph.add("Cast", [scales], to=TensorProto.FLOAT)
    product = graph.add("Mul", [graph.add("Reshape", [levels, apart]), scales])
    whole = graph.constant(np.array([0, 0, -1], np.int64), f"{name}.whole")
    found: str = graph.add("Reshape", [product, whole])
    return found


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


def _linear(graph: Graph, value: str, layer: Affine, name: str, style: _Style) -> str:
    bias = graph.constant(layer.bias, f"{name}.bias")
    if style.precision == "fp32":
        weight = graph.constant(np.ascontiguousarray(layer.weight.T), f"{name}.weight")
        whole: str = graph.add("Add", [graph.add("MatMul", [value, weight]), bias])
        return whole
    if style.precision == "int8-turbo":
        values, scale = quantize_rows(layer.weight)
        stored = graph.constant(np.ascontiguousarray(values.T), f"{name}.int8")
        scales = graph.constant(scale[:, 0], f"{name}.scale")
        fused: str = graph.add("ms.DynamicQuantizeMatMul", [value, stored, scales, "", bias])
        return fused
    if style.static(name):
        product = _static_product(graph, value, layer, name, style)
        added: str = graph.add("ms.MatMulIntegerToFloat", [*product, "", bias])
        return added
    # The peak of a piece is divided out before the product and multiplied in after it.
    if name.endswith(".down"):  # Gelu is above -0.17: no |x| is beyond this
        highest = graph.add("ReduceMax", [value], axes=[-1], keepdims=1)
        peak = graph.add("Max", [highest, graph.constant(_GELU_LOWEST, "gelu.lowest")])
    else:
        highest = graph.add("ReduceMax", [graph.add("Abs", [value])], axes=[-1], keepdims=1)
        peak = graph.add("Max", [highest, graph.constant(np.float32(TINY), "tiny")])
    product = _product(graph, graph.add("Div", [value, peak]), layer, name)
    scaled = graph.add("Mul", [graph.add("ms.MatMulIntegerToFloat", product), peak])
    biased: str = graph.add("Add", [scaled, bias])
    return biased


def _static_product(
    graph: Graph, value: str, layer: Affine, name: str, style: _Style
) -> tuple[str, str, str, str, str]:
    smooth = style.smooth(name)
    if not name.endswith(".out"):  # there the values are smooth already, see _attend
        value = graph.add("Mul", [value, graph.constant(1 / smooth, f"{name}.smooth")])
    return _product(graph, value, Affine(layer.weight * smooth, layer.bias), name)


def _product(graph: Graph, value: str, layer: Affine, name: str) -> tuple[str, str, str, str, str]:
    """Return the inputs of an integer product: value in 8 bits, weight, both scales, zero point.

    `value` is in -1..1. It becomes unsigned, around 128: signed ones miss the fast kernels.
    """
    values, scale = quantize_rows(layer.weight)
    level = graph.constant(np.float32(1 / 127), "level")
    middle = graph.constant(np.uint8(128), "middle")
    return (
        graph.add("QuantizeLinear", [value, level, middle]),
        graph.constant(np.ascontiguousarray(values.T), f"{name}.int8"),
        level,
        graph.constant(scale[:, 0], f"{name}.scale"),
        middle,
    )


def _attend(
    graph: Graph, hidden: str, layer: Layer, name: str, weights: Weights, style: _Style
) -> str:
    values = layer.value
    if style.static(f"{name}.out"):
        # Attention mixes pieces, not channels: what goes into `out` is made smooth for nothing.
        smooth = style.smooth(f"{name}.out")
        values = Affine(values.weight / smooth[:, None], values.bias / smooth)
    parts = (layer.query, layer.key, values)
    fused = Affine(
        np.concatenate([p.weight for p in parts]), np.concatenate([p.bias for p in parts])
    )
    if style.static(f"{name}.qkv"):  # one node does it all: a tenth faster
        small, stored, level, scales, middle = _static_product(
            graph, hidden, fused, f"{name}.qkv", style
        )
        bias = graph.constant(fused.bias, f"{name}.qkv.bias")
        given = [small, stored, bias, level, scales, "", middle]
        mixed = graph.add("ms.QAttention", given, num_heads=weights.heads)
    else:
        together = _linear(graph, hidden, fused, f"{name}.qkv", style)
        size = weights.hidden_size
        sizes = graph.constant(np.array([size] * 3, np.int64), "qkv.sizes")
        query, key, value = graph.add("Split", [together, sizes], outputs=3, axis=-1)
        mixed = graph.add("ms.MultiHeadAttention", [query, key, value], num_heads=weights.heads)
    out = _linear(graph, mixed, layer.out, f"{name}.out", style)
    total = graph.add("Add", [out, hidden])
    return _norm(graph, total, layer.norm1, f"{name}.norm1", weights.epsilon)


def _feed_forward(
    graph: Graph, hidden: str, layer: Layer, name: str, weights: Weights, style: _Style
) -> str:
    wide = graph.add("ms.Gelu", [_linear(graph, hidden, layer.up, f"{name}.up", style)])
    out = _linear(graph, wide, layer.down, f"{name}.down", style)
    total = graph.add("Add", [out, hidden])
    return _norm(graph, total, layer.norm2, f"{name}.norm2", weights.epsilon)


def measure_peaks(weights: Weights, texts: Sequence[Mapping[str, NDArray[np.int64]]]) -> Peaks:
    """Return the largest |x| of each channel that goes into each product, over the feeds `texts`.

    Computed by the fp32 graph: of a text [1, length] at a time.
    """
    graph = build(weights, precision="fp32", metadata={})
    wanted: dict[str, str] = {}
    for node in list(graph.graph.node):
        if node.op_type != "MatMul" or not node.input[1].endswith(".weight"):
            continue
        name = node.input[1].removesuffix(".weight")
        if not name.startswith("layer"):
            continue  # the head, the axes
        value = f"{name}.peaks"
        absolute = helper.make_node("Abs", [node.input[0]], [f"{value}.all"])
        peak = helper.make_node("ReduceMax", [f"{value}.all"], [value], axes=[0, 1], keepdims=0)
        graph.graph.node.extend([absolute, peak])
        graph.graph.output.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, None))
        wanted[name] = value
    onnxruntime = import_onnxruntime()
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    peaks = {name: np.zeros(0, np.float32) for name in wanted}
    for feeds in tqdm(texts, desc="peaks", unit="text", disable=None):
        given = {i.name: feeds[i.name] for i in session.get_inputs()}
        for name, found in zip(wanted, session.run(list(wanted.values()), given), strict=True):
            peaks[name] = np.maximum(peaks[name], found) if peaks[name].size else found
    return peaks
