"""One engine in one process: python bench_engines.py ENGINE DIRECTORY THREADS OPTION DEVICE

Reads commands from standard input, a JSON object a line, and answers each with one:
{"file": texts as JSON, "each": true} times every text alone, false all of them in one call.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench_peers import PEERS, Encode

_AWAKE = 20  # texts before the clock runs: the engine slept while others had their turns


def rubert_lite(folder: Path, threads: int, variant: str, device: str) -> Encode:
    """Ours."""
    from rubert_lite import load

    kind: Any = device
    model = load(folder, variant=variant, device=kind, lanes=threads, verify=False)
    return lambda texts: model.encode(list(texts))


def _versions(names: Sequence[str]) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Load the engine, say so, and time what is asked."""
    began = time.perf_counter()
    engine, folder, threads, option, device = sys.argv[1:]
    os.environ["OMP_NUM_THREADS"] = threads
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_OFFLINE"] = "1"
    make = {"rubert_lite": rubert_lite, **PEERS}[engine]
    encode = make(Path(folder), int(threads), option, device)
    first = encode(["Привет, мир"])
    answer(
        {
            "ready": time.perf_counter() - began,
            "width": int(first.shape[1]),
            "memory": _memory(),
            "versions": _versions(
                ("rubert-lite", "onnxruntime", "torch", "transformers", "sentence-transformers",
                 "optimum-onnx", "openvino", "ctranslate2", "fastembed", "tokenizers", "numpy")
            ),
        }
    )  # fmt: skip
    for line in sys.stdin:
        command = json.loads(line)
        texts = json.loads(Path(command["file"]).read_text(encoding="utf-8"))
        if command["each"]:
            for text in texts[:_AWAKE]:
                encode([text])
            times = []
            for text in texts:
                start = time.perf_counter()
                encode([text])
                times.append(time.perf_counter() - start)
        else:
            start = time.perf_counter()
            encode(texts)
            times = [time.perf_counter() - start]
        answer({"times": times, "memory": _memory()})


def _memory() -> float:
    """Peak resident memory in MB; getrusage would begin with the peak of the parent."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def answer(values: dict[str, Any]) -> None:
    """Write a line that the other side waits for; engines may print what they like elsewhere."""
    os.write(1, f"\n@{json.dumps(values)}\n".encode())


if __name__ == "__main__":
    main()
