"""What the machine could do and how far we are from it: operations, bytes, calls, and their floor.

    python loadtest/roofline.py [PACKAGE] [--out runs/bench]

One thread. The machine's own rates are measured in onnxruntime, by the operators that the int8
graph is made of, at sizes that leave nothing but the operator: int8 and float32 products, passes
over memory in cache, and the price of a node that computes nothing. The floor of a workload is the
sum of its parts at those rates; what stays beyond it is smaller matrices, softmax, and the rest.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import rubert_lite

_WORK = ((1, 16), (1, 64), (8, 16), (1, 512), (16, 512))
_ROUNDS = 40


def seconds(call: Callable[[], Any], rounds: int = _ROUNDS) -> float:
    """Return the median time of a call."""
    call()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def open_session(graph: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Open a graph on one thread, as the engine does."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = graph.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def small_graph(
    nodes: list[onnx.NodeProto], kind: int, width: int, constants: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    """Return a graph from x [rows, width] to y."""
    initial = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(
        nodes,
        "part",
        [helper.make_tensor_value_info("x", kind, ["rows", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initial,
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def measure_machine() -> dict[str, float]:
    """Return operations, bytes and nodes a second of one thread."""
    chance = np.random.default_rng(0)
    size = 1024
    weight = chance.integers(-127, 127, (size, size)).astype(np.int8)
    constants = {
        "w": weight,
        "s": np.float32(0.01),
        "t": np.full(size, 0.01, np.float32),
        "z": np.uint8(128),
    }
    product = helper.make_node(
        "MatMulIntegerToFloat", ["x", "w", "s", "t", "z"], ["y"], domain="com.microsoft"
    )
    int8 = open_session(small_graph([product], TensorProto.UINT8, size, constants))
    rows = chance.integers(0, 255, (size, size)).astype(np.uint8)
    wide = {"w": chance.normal(size=(size, size)).astype(np.float32)}
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    fp32 = open_session(small_graph([node], TensorProto.FLOAT, size, wide))
    floats = chance.normal(size=(size, size)).astype(np.float32)
    # A chain over 256 kB, which stays in the second cache: each node reads and writes it once.
    links = 32
    names = ["x", *(f"a{i}" for i in range(links - 1)), "y"]
    chain = [helper.make_node("Neg", [a], [b]) for a, b in zip(names[:-1], names[1:], strict=True)]
    passes = open_session(small_graph(chain, TensorProto.FLOAT, 256, {}))
    cached = chance.normal(size=(256, 256)).astype(np.float32)
    single = chance.normal(size=(1, 256)).astype(np.float32)
    operations = 2.0 * size**3
    whole, little = (seconds(lambda x=x: passes.run(None, {"x": x})) for x in (cached, single))
    return {
        "int8 operations/s": operations / seconds(lambda: int8.run(None, {"x": rows})),
        "float32 operations/s": operations / seconds(lambda: fp32.run(None, {"x": floats})),
        "bytes/s in cache": 2.0 * links * cached.nbytes / (whole - little),
        "nodes/s": links / little,
    }


def count_work(config: Mapping[str, Any], batch: int, length: int, nodes: int) -> dict[str, float]:
    """Count what one run of the int8 graph does, by the shape in config.json."""
    layers = config.get("n_layers") or config["num_hidden_layers"]
    width = config.get("dim") or config["hidden_size"]
    inner = config.get("hidden_dim") or config["intermediate_size"]
    pieces = batch * length
    # Passes over the activations, read and written: quantising (5 nodes), scale, bias, adds and
    # norms around each product of D or F columns.
    elementwise = pieces * 4 * (width * (5 * 3 + 2 * 5 + 8) + inner * (5 + 4 + 2)) * 2
    return {
        "int8 operations": 2.0 * pieces * layers * (4 * width**2 + 2 * width * inner),
        "float32 operations": 4.0 * batch * layers * length**2 * width,
        "bytes in cache": float(layers * elementwise),
        "nodes": float(nodes),
    }


def floor(work: Mapping[str, float], machine: Mapping[str, float]) -> dict[str, float]:
    """Return the milliseconds that each kind of work costs at the machine's rates."""
    return {
        name: 1000 * work[name] / machine[rate]
        for name, rate in (
            ("int8 operations", "int8 operations/s"),
            ("float32 operations", "float32 operations/s"),
            ("bytes in cache", "bytes/s in cache"),
            ("nodes", "nodes/s"),
        )
    }


def main() -> None:
    """Measure, print the table, write roofline.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", nargs="?", default="distil-16k")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    arguments = parser.parse_args()
    model = rubert_lite.load(arguments.package, lanes=1)
    package = model.package
    config = json.loads((package.path / "config.json").read_text(encoding="utf-8"))
    graph = onnx.load(package.file(package.manifest.variants[model.variant]))
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), _options(), providers=["CPUExecutionProvider"]
    )
    machine = measure_machine()
    rows: list[dict[str, Any]] = []
    chance = np.random.default_rng(1)
    for batch, length in _WORK:
        work = count_work(config, batch, length, len(graph.graph.node))
        ids = chance.integers(5, package.manifest.vocab_size, (batch, length))
        feeds = {"input_ids": ids}
        took = 1000 * seconds(lambda f=feeds: session.run(["sentence_embedding"], f))
        parts = floor(work, machine)
        rows.append({"batch": batch, "length": length, "ms": took, "floor": parts, "work": work})
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = {"machine": machine, "rows": rows, "onnxruntime": onnxruntime.__version__}
    (arguments.out / "roofline.json").write_text(json.dumps(data, indent=1) + "\n")
    print("one thread: " + ", ".join(f"{v:.3g} {k}" for k, v in machine.items()))
    print("| batch x pieces | ms | floor | " + " | ".join(rows[0]["floor"]) + " | ms / floor |")
    print("|" + " --- |" * 8)
    for row in rows:
        total = sum(row["floor"].values())
        cells = [f"{v:.3f}" for v in (row["ms"], total, *row["floor"].values())]
        name = f"{row['batch']} x {row['length']}"
        print(f"| {name} | " + " | ".join(cells) + f" | {row['ms'] / total:.2f} |")


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


if __name__ == "__main__":
    main()
