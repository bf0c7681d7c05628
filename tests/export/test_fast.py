from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModel

from export.fast import build, measure_peaks
from export.quantize import (
    dequantize_blocks,
    dequantize_rows,
    quantize_blocks,
    quantize_rows,
)
from export.weights import read_weights
from rubert_lite.engine import Batch, Engine
from rubert_lite.errors import InputError
from tests.export.conftest import write_checkpoint

SHAPES = {
    "distilbert": {},
    "bert with token types": {"kind": "bert"},
    "bert with one token type": {"kind": "bert", "types": 1},
    "odd head size": {"hidden": 66, "heads": 3},
    "published 3 x 264 x 12": {"hidden": 264, "heads": 12, "layers": 3, "ffn": 792, "length": 512},
}


def run(graph: onnx.ModelProto, ids, output="sentence_embedding", types=None):
    engine = Engine(graph.SerializeToString(), lanes=1)
    ids = np.asarray(ids, dtype=np.int64)
    feeds = {"input_ids": ids, "token_type_ids": np.zeros_like(ids) if types is None else types}
    return engine.run(Batch(np.arange(len(ids)), {k: feeds[k] for k in engine.inputs}), output)


def torch_pooled(folder, ids, types=None):
    model = AutoModel.from_pretrained(folder).eval()
    extra = {} if types is None else {"token_type_ids": torch.from_numpy(types)}
    with torch.no_grad():
        return model(torch.from_numpy(ids), **extra).last_hidden_state.mean(1).numpy()


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_both_precisions_agree_with_torch_over_all_ids(tmp_path, shape):
    folder = write_checkpoint(tmp_path / "c", **shape)
    weights = read_weights(folder)
    vocab, length = len(weights.pieces), len(weights.positions)
    rng = np.random.default_rng(0)
    for size in (1, 2, 17, length):
        ids = rng.integers(0, vocab, (3, size))
        ids[0, -1] = vocab - 1
        expected = torch_pooled(folder, ids)
        exact = run(build(weights, precision="fp32", metadata={}), ids, "pooled")
        assert np.abs(exact - expected).max() < 1e-5
        for precision in ("int8", "int8-turbo"):
            small = run(build(weights, precision=precision, metadata={}), ids)
            assert (small * unit(expected)).sum(1).min() > 0.995


def peaks_of(weights):
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, len(weights.pieces), (1, n)) for n in rng.integers(2, 40, 60)]
    rows += [np.array([[i]]) for i in range(len(weights.pieces))]  # a piece alone is not averaged
    feeds = [{"input_ids": r, "token_type_ids": np.zeros_like(r)} for r in rows]
    return measure_peaks(weights, feeds)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_static_scales_agree_with_torch_and_keep_texts_apart(tmp_path, shape):
    folder = write_checkpoint(tmp_path / "c", **shape)
    weights = read_weights(folder)
    graph = build(weights, precision="int8-static", metadata={}, peaks=peaks_of(weights))
    rng = np.random.default_rng(0)
    for size in (1, 17, len(weights.positions)):
        ids = rng.integers(0, len(weights.pieces), (8, size))
        expected = unit(torch_pooled(folder, ids))
        together = run(graph, ids)
        assert (together * expected).sum(1).min() > 0.99
        alone = np.concatenate([run(graph, ids[i : i + 1]) for i in range(8)])
        assert np.abs(together - alone).max() <= 1e-6


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_rows_of_four_bits_are_read_as_they_are_written(tmp_path, shape):
    folder = write_checkpoint(tmp_path / "c", **shape)
    weights = read_weights(folder)
    rows = dequantize_blocks(*quantize_blocks(weights.pieces))
    rounded = replace(weights, pieces=rows)
    peaks = peaks_of(rounded)
    rng = np.random.default_rng(0)
    for size in (1, 17, len(weights.positions)):
        ids = rng.integers(0, len(weights.pieces), (8, size))
        for four, eight in (("int4", "int8"), ("int4-static", "int8-static")):
            found = run(build(weights, precision=four, metadata={}, peaks=peaks), ids)
            # In 8 bits those rows lose a little more: 15 levels are no 255th parts of the largest.
            near = run(build(rounded, precision=eight, metadata={}, peaks=peaks), ids)
            assert (found * near).sum(1).min() > 0.999
            alone = np.concatenate(
                [
                    run(build(weights, precision=four, metadata={}, peaks=peaks), ids[i : i + 1])
                    for i in (0, 5)
                ]
            )
            assert np.abs(found[[0, 5]] - alone).max() <= 1e-6
    size = {p: build(weights, precision=p, metadata={}).ByteSize() for p in ("int4", "int8")}
    table = weights.pieces.size
    assert size["int4"] < size["int8"] - 0.3 * table + 2000


def test_blocks_of_four_bits():
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(200, 264)) * 10.0 ** rng.integers(-3, 3, (200, 1))).astype(np.float32)
    rows[7] = 0
    packed, scale = quantize_blocks(rows)
    assert packed.shape == (200, 132) and scale.shape == (200, 11, 1)  # 24 numbers a scale
    found = dequantize_blocks(packed, scale)
    assert not found[7].any()
    assert (packed & 15).min() >= 1 and (packed >> 4).min() >= 1  # -8 is never used
    worst = np.abs(found - rows).reshape(200, 11, 24).max(2) / np.abs(rows).reshape(
        200, 11, 24
    ).max(2).clip(1e-9)
    assert worst.max() <= 0.26  # at most a quarter is cut off the largest number
    again = quantize_blocks(found)
    assert np.array_equal(dequantize_blocks(*again), found)
    plain = np.abs(rows).reshape(200, 11, 24).max(2, keepdims=True) / 7
    plain = np.where(plain == 0, 1, plain)
    simple = (np.rint(rows.reshape(200, 11, 24) / plain) * plain).reshape(rows.shape)
    assert ((found - rows) ** 2).sum() < 0.97 * ((simple - rows) ** 2).sum()
    with pytest.raises(InputError, match="width 33, expected an even one"):
        quantize_blocks(np.ones((2, 33), np.float32))


def test_peaks_are_those_of_what_goes_into_each_product(checkpoint):
    weights = read_weights(checkpoint)
    ids = np.array([[5, 6, 7, 8]])
    peaks = measure_peaks(weights, [{"input_ids": ids}])
    assert set(peaks) == {
        f"layer{i}.{part}" for i in range(2) for part in ("qkv", "out", "up", "down")
    }
    model = AutoModel.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        states = model(torch.from_numpy(ids), output_hidden_states=True).hidden_states
    for layer in range(2):
        wanted = states[layer][0].abs().max(0).values.numpy()
        assert np.abs(peaks[f"layer{layer}.qkv"] - wanted).max() < 1e-5
    more = measure_peaks(weights, [{"input_ids": ids}, {"input_ids": ids[:, ::-1].copy() + 20}])
    assert all((more[k] >= peaks[k]).all() for k in peaks)


def test_token_types_are_read(tmp_path):
    folder = write_checkpoint(tmp_path / "c", kind="bert")
    ids = np.arange(5, 17).reshape(1, 12)
    types = (np.arange(12) > 5).astype(np.int64).reshape(1, 12)
    graph = build(read_weights(folder), precision="fp32", metadata={})
    found = run(graph, ids, "pooled", types)
    assert np.abs(found - torch_pooled(folder, ids, types)).max() < 1e-5
    assert np.abs(found - run(graph, ids, "pooled")).max() > 1e-3


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_vector_does_not_depend_on_its_neighbours(checkpoint, precision):
    weights = read_weights(checkpoint)
    graph = build(weights, precision=precision, metadata={})
    rng = np.random.default_rng(0)
    for size in (3, 20, 64):
        ids = rng.integers(0, len(weights.pieces), (32, size))
        together = run(graph, ids)
        alone = np.concatenate([run(graph, ids[i : i + 1]) for i in range(32)])
        assert np.abs(together - alone).max() <= 1e-6


def test_a_piece_of_zeros_stays_finite_in_int8(checkpoint):
    """Its peak is 0, and is divided by."""
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    for name in ("weight", "bias"):
        key = f"distilbert.embeddings.LayerNorm.{name}"
        tensors[key] = np.zeros_like(tensors[key])
    save_file(tensors, path, metadata={"format": "pt"})
    ids = np.arange(5, 15).reshape(1, 10)
    found = run(build(read_weights(checkpoint), precision="int8", metadata={}), ids)
    assert (found * unit(torch_pooled(checkpoint, ids))).sum() > 0.99


def test_nothing_is_divided_by_a_peak_that_may_be_zero(checkpoint):
    """What 0 / 0 becomes in 8 bits differs between processors."""
    graph = build(read_weights(checkpoint), precision="int8", metadata={}).graph
    makers = {output: node for node in graph.node for output in node.output}
    divisions = [node for node in graph.node if node.op_type == "Div"]
    assert len(divisions) == 2 * 4 + 1
    assert {makers[node.input[1]].op_type for node in divisions} == {"Max"}


def test_logits_come_from_the_pooled_vector(tmp_path):
    folder = write_checkpoint(tmp_path / "c", labels=3)
    weights = read_weights(folder)
    ids = np.arange(5, 25).reshape(2, 10)
    found = run(build(weights, precision="fp32", metadata={}), ids, "logits")
    assert weights.head is not None
    expected = torch_pooled(folder, ids) @ weights.head.weight.T + weights.head.bias
    assert np.abs(found - expected).max() < 1e-4


def test_the_graph_is_one_valid_file_that_says_what_it_is(checkpoint):
    graph = build(
        read_weights(checkpoint), precision="int8", metadata={"rubert_lite.variant": "int8"}
    )
    onnx.checker.check_model(graph)
    assert not any(t.external_data for t in graph.graph.initializer)
    assert {p.key: p.value for p in graph.metadata_props} == {"rubert_lite.variant": "int8"}
    kinds = {n.op_type for n in graph.graph.node}
    assert "SkipLayerNormalization" not in kinds and "LayerNormalization" in kinds
    table = next(t for t in graph.graph.initializer if t.name == "pieces.int8")
    assert table.data_type == onnx.TensorProto.INT8


def test_rows_are_quantised_symmetrically():
    values, scale = quantize_rows(np.array([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]], np.float32))
    assert values.tolist() == [[64, -127, 32], [0, 0, 0]]
    assert scale[:, 0].tolist() == pytest.approx([2 / 127, 1.0])
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5, 40)).astype(np.float32)
    values, scale = quantize_rows(rows)
    assert (np.abs(dequantize_rows(values, scale) - rows) <= scale / 2 + 1e-7).all()
