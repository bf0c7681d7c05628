"""One engine in one process: python bench_engines.py ENGINE DIRECTORY THREADS

Reads commands from standard input, a JSON object a line, and answers each with one:
{"file": texts as JSON, "each": true} times every text alone, false all of them in one call.
Imports nothing but the engine, so that every engine may live in its own environment.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

BATCH = 32  # what the peers do by default
Encode = Callable[[Sequence[str]], Any]


def _mean(hidden: Any, mask: Any) -> Any:
    """Pool and normalise as the model does, in numpy."""
    import numpy as np

    weights = mask[:, :, None].astype(np.float32)
    pooled = (hidden * weights).sum(1) / weights.sum(1)
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)


def _batched(texts: Sequence[str], run: Callable[[list[str]], Any]) -> Any:
    """Encode in batches of texts of similar length, as sentence-transformers does."""
    import numpy as np

    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    rows: Any = None
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        found = run([texts[i] for i in chosen])
        if rows is None:
            rows = np.empty((len(texts), found.shape[1]), dtype=np.float32)
        rows[chosen] = found
    return rows


def rubert_lite(folder: Path, threads: int, variant: str) -> Encode:
    """Ours."""
    from rubert_lite import load

    model = load(folder, variant=variant, lanes=threads, verify=False)
    return lambda texts: model.encode(list(texts))


def transformers(folder: Path, threads: int, dtype: str) -> Encode:
    """Transformers with torch, eager."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    return _torch(folder, threads, model)


def teacher(folder: Path, threads: int, dtype: str) -> Encode:
    """RuBERT's shape, 12 x 768 with 119,547 pieces, of random weights; it reads the same pieces."""
    import torch
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(vocab_size=119_547), add_pooling_layer=False)
    return _torch(folder, threads, model.to(getattr(torch, dtype)).eval())


def _torch(folder: Path, threads: int, model: Any) -> Encode:
    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.inference_mode()
    def run(texts: list[str]) -> Any:
        feeds = tokenizer(texts, padding=True, truncation=True, max_length=512, return_tensors="pt")
        hidden = model(**feeds).last_hidden_state.float().numpy()
        return _mean(hidden, feeds["attention_mask"].numpy())

    return lambda texts: _batched(texts, run)


def sentence_transformers(folder: Path, threads: int, backend: str) -> Encode:
    """sentence-transformers; a backend may name a file: onnx:onnx/model_quantized.onnx."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    kind, _, file = backend.partition(":")
    options: dict[str, Any] = {"file_name": file} if file else {}
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = threads
        options |= {"provider": "CPUExecutionProvider", "session_options": session}
    if kind == "openvino":
        options["ov_config"] = {"INFERENCE_NUM_THREADS": threads}
    model = SentenceTransformer(
        str(folder), backend=kind, device="cpu", model_kwargs=options if kind != "torch" else {}
    )
    return lambda texts: model.encode(list(texts), show_progress_bar=False)


def optimum(folder: Path, threads: int, file: str) -> Encode:
    """Optimum's ONNX Runtime class."""
    import onnxruntime
    from optimum.onnxruntime import ORTModelForFeatureExtraction
    from transformers import AutoTokenizer

    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = threads
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = ORTModelForFeatureExtraction.from_pretrained(
        folder, subfolder="onnx", file_name=file, session_options=session
    )

    def run(texts: list[str]) -> Any:
        feeds = tokenizer(texts, padding=True, truncation=True, max_length=512, return_tensors="np")
        return _mean(model(**feeds).last_hidden_state, feeds["attention_mask"])

    return lambda texts: _batched(texts, run)


def openvino(folder: Path, threads: int, precision: str) -> Encode:
    """OpenVINO on the portable graph; int8: weights compressed and activations dynamic."""
    import numpy as np
    import openvino as ov
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(512)
    tokenizer.enable_padding()
    core = ov.Core()
    graph = core.read_model(folder / "onnx" / "model.onnx")
    if precision == "int8":
        import nncf

        graph = nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_SYM)
    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    settings["INFERENCE_PRECISION_HINT"] = "bf16" if precision == "bf16" else "f32"
    if precision == "int8":
        settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 32
    compiled = core.compile_model(graph, "CPU", settings)
    names = {i.get_any_name() for i in compiled.inputs}

    def run(texts: list[str]) -> Any:
        found = tokenizer.encode_batch(texts)
        feeds = {
            "input_ids": np.array([e.ids for e in found]),
            "attention_mask": np.array([e.attention_mask for e in found]),
        }
        if "token_type_ids" in names:
            feeds["token_type_ids"] = np.zeros_like(feeds["input_ids"])
        return _mean(compiled(feeds)[0], feeds["attention_mask"])

    return lambda texts: _batched(texts, run)


def ctranslate2(folder: Path, threads: int, kind: str) -> Encode:
    """CTranslate2, converted once beside the model."""
    import ctranslate2
    import numpy as np
    from tokenizers import Tokenizer

    out = folder / "ctranslate2"
    if not out.exists():
        converter = ctranslate2.converters.TransformersConverter(str(folder))
        converter.convert(str(out), quantization=kind)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(512)
    encoder = ctranslate2.Encoder(str(out), compute_type=kind, intra_threads=threads)

    def run(texts: list[str]) -> Any:
        ids = [e.ids for e in tokenizer.encode_batch(texts)]
        hidden = np.array(encoder.forward_batch(ids).last_hidden_state)
        mask = np.arange(hidden.shape[1]) < np.array([[len(i)] for i in ids])
        return _mean(hidden, mask)

    return lambda texts: _batched(texts, run)


def fastembed(folder: Path, threads: int, file: str) -> Encode:
    """fastembed with a local directory."""
    import numpy as np
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    width = json.loads((folder / "config.json").read_text())
    TextEmbedding.add_custom_model(
        model=str(folder),
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(url="http://localhost/none"),
        dim=width.get("dim") or width["hidden_size"],
        model_file=file,
    )
    model = TextEmbedding(str(folder), specific_model_path=str(folder), threads=threads)
    return lambda texts: np.stack(list(model.embed(list(texts), batch_size=BATCH)))


def static(folder: Path, threads: int, unused: str) -> Encode:
    """Rows of pieces, averaged: the floor that any tokenising encoder can reach."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(512)
    rows = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 256))
    rows = rows.astype(np.float32)

    def encode(texts: Sequence[str]) -> Any:
        found = np.stack([rows[e.ids].mean(0) for e in tokenizer.encode_batch_fast(list(texts))])
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    return encode


ENGINES: dict[str, Callable[[Path, int, str], Encode]] = {
    f.__name__: f
    for f in (
        rubert_lite,
        transformers,
        teacher,
        sentence_transformers,
        optimum,
        openvino,
        ctranslate2,
        fastembed,
        static,
    )
}


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
    engine, folder, threads, option = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_OFFLINE"] = "1"
    encode = ENGINES[engine](folder, threads, option)
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
