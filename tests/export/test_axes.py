"""Axes of a checkpoint turn its vectors, in every graph and for every reader, and nothing else."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from export.fast import build
from export.gpu import build_gpu
from export.pack import export
from export.remap import trim
from export.sample import TEXTS
from export.unpack import unpack
from export.weights import read_weights
from rubert_lite import load
from rubert_lite.engine import Batch, Engine
from rubert_lite.errors import InputError
from tests.export.conftest import PIECES, write_checkpoint

WIDTH = 64


def axes_of(seed: int = 3) -> np.ndarray:
    """Some rotation, in the digits that training writes."""
    square = np.random.default_rng(seed).normal(size=(WIDTH, WIDTH))
    return np.linalg.qr(square)[0].astype(np.float16)


@pytest.fixture
def turned(tmp_path):
    """A checkpoint with a head and axes."""
    folder = write_checkpoint(tmp_path / "turned", labels=3)
    save_file({"weight": axes_of()}, folder / "axes.safetensors")
    return folder


@pytest.mark.parametrize("variant", ["fp32", "int8", "int4"])
def test_vectors_are_turned_and_labels_are_not(tmp_path, turned, variant):
    plain = write_checkpoint(tmp_path / "plain", labels=3)
    before = load(export(plain, tmp_path / "a", variants=(variant,)).path)
    after = load(export(turned, tmp_path / "b", variants=(variant,)).path)
    axes = axes_of().astype(np.float32)
    assert np.allclose(after.encode(TEXTS), before.encode(TEXTS) @ axes.T, atol=2e-3)
    assert after.classify(TEXTS) == before.classify(TEXTS)


def test_the_graph_for_a_gpu_turns_them_too(turned):
    weights = read_weights(turned)
    ids = np.array([[2, 9, 11, 3]], np.int64)
    fast = Engine(build(weights, precision="fp32", metadata={}).SerializeToString(), lanes=1)
    gpu = Engine(build_gpu(weights, metadata={}).SerializeToString(), lanes=1)
    feeds = {"input_ids": ids, "lengths": np.array([4], np.int64)}
    found = [
        e.run(Batch(np.arange(1), {k: feeds[k] for k in e.inputs}), "pooled") for e in (fast, gpu)
    ]
    assert np.allclose(*found, atol=0.05) and np.abs(found[0]).max() > 0.5


def test_they_come_back_out_of_a_package(tmp_path, turned):
    package = export(turned, tmp_path / "p", variants=("int8",))
    (tmp_path / "u").mkdir()
    unpack(package, tmp_path / "u")
    assert (load_file(tmp_path / "u" / "axes.safetensors")["weight"] == axes_of()).all()
    again = export(tmp_path / "u", tmp_path / "again", variants=("int8",))
    assert np.abs(load(package.path).encode(TEXTS) - load(again.path).encode(TEXTS)).max() < 1e-5


def test_sentence_transformers_turns_them_as_well(tmp_path, turned):
    from sentence_transformers import SentenceTransformer

    package = export(turned, tmp_path / "p", variants=("fp32", "portable", "safetensors"))
    theirs = SentenceTransformer(str(package.path), device="cpu")
    texts = [t for t in TEXTS if t.strip()]
    ours = load(package.path, variant="fp32").encode(texts)
    assert np.abs(theirs.encode(texts) - ours).max() < 1e-4
    again = export(package.path, tmp_path / "again", variants=("fp32",))
    assert np.abs(load(again.path).encode(texts) - ours).max() < 1e-6


def test_a_smaller_vocabulary_keeps_them(tmp_path, turned):
    trim(turned, range(len(PIECES) - 1), tmp_path / "trimmed")
    assert (read_weights(tmp_path / "trimmed").axes == axes_of()).all()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": np.eye(5, dtype=np.float32)}, r"shape \[5, 5\], expected \[64, 64\]"),
        ({"other": np.eye(WIDTH, dtype=np.float32)}, "has other, expected weight"),
        ({"weight": np.full((WIDTH, WIDTH), np.nan, np.float32)}, "not finite"),
    ],
)
def test_other_axes_are_refused(turned, tensors, message):
    save_file(tensors, turned / "axes.safetensors")
    with pytest.raises(InputError, match=message):
        read_weights(turned)
