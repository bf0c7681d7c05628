"""What all our graphs share: nodes under running names, and the ends of an encoder."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rubert_lite.manifest import PIECEWISE

from .turn import TINY
from .weights import Weights

_OPSET = 17
_CONTRIB = "com.microsoft"
_IR_VERSION = 9  # the oldest that these operators need: more runtimes can read it

Shape = list[str | int]


class Graph:
    """Collect nodes and constants under running names."""

    def __init__(self) -> None:
        """Begin with nothing."""
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

    def finish(
        self,
        inputs: Mapping[str, Shape],
        outputs: Mapping[str, Shape],
        metadata: Mapping[str, str],
    ) -> onnx.ModelProto:
        """Make a model: inputs are int64, outputs float32."""
        model = helper.make_model(
            helper.make_graph(
                self.nodes,
                "rubert_lite",
                [
                    helper.make_tensor_value_info(name, TensorProto.INT64, shape)
                    for name, shape in inputs.items()
                ],
                [
                    helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                    for name, shape in outputs.items()
                ],
                list(self.constants.values()),
            ),
            opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)],
            ir_version=_IR_VERSION,
            producer_name="rubert_lite",
        )
        helper.set_model_props(model, dict(metadata))
        return model


def finish_outputs(
    graph: Graph, hidden: str, pooled: str, weights: Weights, *, sums: str = ""
) -> dict[str, Shape]:
    """Add pooled, sentence_embedding and logits from float32 states and their mean.

    Axes turn the vectors; a head reads the mean as it is. `sums` of the vectors of pieces, float32
    [batch, width], are given where the weights have such.
    """
    mean = pooled
    if weights.turn.axes is not None:
        if sums:
            pooled = graph.add("Concat", [_unit(graph, mean), _unit(graph, sums)], axis=-1)
        # Half the bytes, and the digits that were written; the runtime widens it once, at loading.
        small = graph.constant(np.ascontiguousarray(weights.turn.axes.T).astype(np.float16), "axes")
        wide = graph.add("Cast", [small], to=TensorProto.FLOAT)
        pooled = graph.add("MatMul", [pooled, wide])
    unit = _unit(graph, pooled)
    graph.rename(pooled, "pooled")
    graph.rename(unit, "sentence_embedding")
    width = weights.width
    outputs: dict[str, Shape] = {
        "pooled": ["batch", width],
        "sentence_embedding": ["batch", width],
    }
    if weights.head is not None:
        on_pieces = weights.task in PIECEWISE
        # In float32: it is small, and a label should not turn on rounding.
        weight = graph.constant(np.ascontiguousarray(weights.head.weight.T), "head.weight")
        product = graph.add("MatMul", [hidden if on_pieces else mean, weight])
        bias = graph.constant(weights.head.bias, "head.bias")
        graph.rename(graph.add("Add", [product, bias]), "logits")
        labels = len(weights.head.bias)
        outputs["logits"] = ["batch", "length", labels] if on_pieces else ["batch", labels]
    return outputs


def _unit(graph: Graph, vectors: str) -> str:
    length = graph.add("ReduceL2", [vectors], axes=[-1], keepdims=1)
    floor = graph.constant(np.float32(TINY), "tiny")
    found: str = graph.add("Div", [vectors, graph.add("Max", [length, floor])])
    return found
