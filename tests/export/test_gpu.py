"""The graph for CUDA, on the CPU provider: what it computes, not how fast."""

import numpy as np
import onnx
import pytest

from export.gpu import build_gpu
from export.pack import export
from export.sample import TEXTS
from export.weights import read_weights
from rubert_lite import InputError, load
from rubert_lite.engine import Batch, Engine
from tests.export.conftest import write_checkpoint

from .test_fast import SHAPES, torch_pooled, unit


def run(graph: onnx.ModelProto, ids, lengths, output="sentence_embedding", types=None):
    engine = Engine(graph.SerializeToString(), lanes=1)
    feeds = {
        "input_ids": np.asarray(ids, np.int64),
        "lengths": np.asarray(lengths, np.int64),
        "token_type_ids": np.zeros_like(ids) if types is None else types,
    }
    return engine.run(Batch(np.arange(len(ids)), {k: feeds[k] for k in engine.inputs}), output)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_padded_rows_agree_with_torch(tmp_path, shape):
    folder = write_checkpoint(tmp_path / "c", **shape)
    weights = read_weights(folder)
    length = len(weights.positions)
    rng = np.random.default_rng(0)
    lengths = [1, 5, length]
    ids = rng.integers(0, len(weights.pieces), (3, length))
    found = run(build_gpu(weights, metadata={}), ids, lengths)
    for row, size in enumerate(lengths):
        expected = unit(torch_pooled(folder, ids[row : row + 1, :size]))[0]
        assert found[row] @ expected > 0.9995


def test_what_stands_in_the_padding_does_not_matter(checkpoint):
    weights = read_weights(checkpoint)
    graph = build_gpu(weights, metadata={})
    rng = np.random.default_rng(0)
    ids = rng.integers(0, len(weights.pieces), (4, 30))
    other = ids.copy()
    other[:, 11:] = rng.integers(0, len(weights.pieces), (4, 19))
    assert np.array_equal(run(graph, ids, [11] * 4), run(graph, other, [11] * 4))


def test_token_types_are_read(tmp_path):
    folder = write_checkpoint(tmp_path / "c", kind="bert")
    ids = np.arange(5, 17).reshape(1, 12)
    types = (np.arange(12) > 5).astype(np.int64).reshape(1, 12)
    graph = build_gpu(read_weights(folder), metadata={})
    found = run(graph, ids, [12], types=types)
    assert (found @ unit(torch_pooled(folder, ids, types)).T).item() > 0.9995
    assert np.abs(found - run(graph, ids, [12])).max() > 1e-3


def test_only_small_parts_are_in_float32(checkpoint):
    graph = build_gpu(read_weights(checkpoint), metadata={}).graph
    kinds = {n.op_type for n in graph.node}
    assert {"Attention", "SkipLayerNormalization", "BiasGelu"} <= kinds
    wide = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert sum(np.prod(t.dims) for t in wide) < 10


def test_a_package_for_both_devices(tmp_path):
    folder = write_checkpoint(tmp_path / "c", labels=3, length=20)
    package = export(folder, tmp_path / "p", variants=("int8", "fp16"))
    parity = package.manifest.metrics["parity"]["fp16"]
    assert parity["mean_cosine"] > 0.9999 and parity["logits_difference"] < 0.05
    exact, half = (load(package.path, variant=v) for v in ("int8", "fp16"))
    texts = [*TEXTS, "привет " * 50, ""]
    assert (exact.encode(texts) * half.encode(texts)).sum(1).min() > 0.99
    labels = [[p.label for p in m.classify(texts)] for m in (exact, half)]
    assert sum(a == b for a, b in zip(*labels, strict=True)) >= len(texts) - 1
    assert exact.variant == "int8" and half.variant == "fp16"


def test_entities_come_from_padded_rows_too(tmp_path):
    folder = write_checkpoint(tmp_path / "c", kind="bert", labels=3, task="token-classification")
    package = export(folder, tmp_path / "p", variants=("fp32", "fp16"))
    texts = [*TEXTS, "привет, мир " * 60]
    readers = [load(package.path, variant=v)._spans for v in ("fp32", "fp16")]
    exact, half = (r.complete(r.windows.words(texts)) for r in readers)
    for (words, logits), (others, halves) in zip(exact, half, strict=True):
        assert words == others and (not words or np.abs(logits - halves).max() < 0.1)


def test_cuda_needs_its_variant(checkpoint, tmp_path):
    package = export(checkpoint, tmp_path / "p")
    with pytest.raises(InputError, match="no variant fp16, which device='cuda' needs"):
        load(package.path, device="cuda")
