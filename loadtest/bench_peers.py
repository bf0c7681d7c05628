"""The peers of the benchmark, each as a function from a directory to texts -> vectors.

Imports nothing but the engine that is asked for: each may live in an environment of its own.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

BATCH, BATCH_CUDA = 32, 256  # 32 is what the peers do by default; it would leave a GPU idle
Encode = Callable[[Sequence[str]], Any]


def batch_of(device: str) -> int:
    """Return how many texts a peer takes at a time."""
    return BATCH_CUDA if device == "cuda" else BATCH


def _mean(hidden: Any, mask: Any) -> Any:
    """Pool and normalise as the model does, in numpy."""
    import numpy as np

    weights = mask[:, :, None].astype(np.float32)
    pooled = (hidden * weights).sum(1) / weights.sum(1)
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)


def _batched(texts: Sequence[str], run: Callable[[list[str]], Any], size: int = BATCH) -> Any:
    """Encode in batches of texts of similar length, as sentence-transformers does."""
    import numpy as np

    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    rows: Any = None
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        found = run([texts[i] for i in chosen])
        if rows is None:
            rows = np.empty((len(texts), found.shape[1]), dtype=np.float32)
        rows[chosen] = found
    return rows


def transformers(folder: Path, threads: int, dtype: str, device: str) -> Encode:
    """Transformers with torch, eager."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    return _torch(folder, threads, model, device)


def teacher(folder: Path, threads: int, dtype: str, device: str) -> Encode:
    """RuBERT's shape, 12 x 768 with 119,547 pieces, of random weights; it reads the same pieces."""
    import torch
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(vocab_size=119_547), add_pooling_layer=False)
    return _torch(folder, threads, model.to(getattr(torch, dtype)).eval(), device)


def _torch(folder: Path, threads: int, model: Any, device: str) -> Encode:
    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = model.to(device)

    @torch.inference_mode()
    def run(texts: list[str]) -> Any:
        feeds = tokenizer(texts, padding=True, truncation=True, max_length=512, return_tensors="pt")
        hidden = model(**feeds.to(device)).last_hidden_state.float()
        weights = feeds["attention_mask"].to(device)[:, :, None].float()  # pooled where it is
        pooled = (hidden * weights).sum(1) / weights.sum(1)
        return torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()

    return lambda texts: _batched(texts, run, batch_of(device))


def sentence_transformers(folder: Path, threads: int, backend: str, device: str) -> Encode:
    """sentence-transformers; torch/float16 in half precision, onnx:FILE with a file."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    kind, _, file = backend.partition(":")
    kind, _, dtype = kind.partition("/")
    options: dict[str, Any] = {"file_name": file} if file else {}
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = threads
        options |= {"provider": "CPUExecutionProvider", "session_options": session}
    if kind == "openvino":
        options["ov_config"] = {"INFERENCE_NUM_THREADS": threads}
    model = SentenceTransformer(
        str(folder), backend=kind, device=device, model_kwargs=options if kind != "torch" else {}
    )
    if dtype:
        model = model.to(getattr(torch, dtype))
    size = batch_of(device)
    return lambda texts: model.encode(list(texts), batch_size=size, show_progress_bar=False)


def optimum(folder: Path, threads: int, file: str, device: str) -> Encode:
    """Optimum's ONNX Runtime class."""
    import onnxruntime
    from optimum.onnxruntime import ORTModelForFeatureExtraction
    from transformers import AutoTokenizer

    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = threads
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = ORTModelForFeatureExtraction.from_pretrained(
        folder,
        subfolder="onnx",
        file_name=file,
        session_options=session,
        provider="CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider",
    )

    def run(texts: list[str]) -> Any:
        feeds = tokenizer(texts, padding=True, truncation=True, max_length=512, return_tensors="np")
        return _mean(model(**feeds).last_hidden_state, feeds["attention_mask"])

    return lambda texts: _batched(texts, run, batch_of(device))


def openvino(folder: Path, threads: int, precision: str, device: str) -> Encode:
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


def ctranslate2(folder: Path, threads: int, kind: str, device: str) -> Encode:
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


def fastembed(folder: Path, threads: int, file: str, device: str) -> Encode:
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


def static(folder: Path, threads: int, unused: str, device: str) -> Encode:
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


PEERS: dict[str, Callable[[Path, int, str, str], Encode]] = {
    f.__name__: f
    for f in (
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
