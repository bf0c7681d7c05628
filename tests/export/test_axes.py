"""Axes of a checkpoint turn its vectors, in every graph and for every reader, and nothing else.

So do axes that join them to vectors of pieces.
"""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from export.fast import build
from export.gpu import build_gpu
from export.pack import export
from export.quantize import dequantize_blocks, quantize_blocks
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


BESIDE = 32


def lexical_of() -> np.ndarray:
    """Vectors of the pieces; of the special ones, at the beginning, zeros."""
    found = np.random.default_rng(5).normal(size=(len(PIECES), BESIDE)).astype(np.float16)
    found[:5] = 0
    return found


@pytest.fixture(params=["axes", "axes and pieces", "more axes than states have dimensions"])
def turned(tmp_path, request):
    """A checkpoint with a head and axes, and perhaps vectors of pieces."""
    folder = write_checkpoint(tmp_path / "turned", labels=3)
    if request.param == "axes":
        save_file({"weight": axes_of()}, folder / "axes.safetensors")
    else:
        wide = np.concatenate([axes_of(), axes_of(7)[:, :BESIDE]], axis=1)
        if request.param.startswith("more"):
            wide = np.concatenate([wide, wide[::-2]])
        save_file({"weight": wide}, folder / "axes.safetensors")
        save_file({"weight": lexical_of()}, folder / "lexical.safetensors")
    return folder


def unit(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


@pytest.mark.parametrize("variant", ["fp32", "int8", "int4", "fp16"])
def test_vectors_are_turned_and_labels_are_not(tmp_path, turned, variant):
    plain = write_checkpoint(tmp_path / "plain", labels=3)
    before = load(export(plain, tmp_path / "a", variants=(variant,)).path)
    after = load(export(turned, tmp_path / "b", variants=(variant,)).path)
    axes = load_file(turned / "axes.safetensors")["weight"].astype(np.float32)
    said = before.encode(TEXTS)
    if axes.shape[1] > WIDTH:
        ids = [[PIECES.index(p) for p in after.tokenize(text)] for text in TEXTS]
        rows = lexical_of().astype(np.float32)
        if variant == "int4":
            rows = dequantize_blocks(*quantize_blocks(rows))
        sums = np.stack([rows[row].sum(0) for row in ids])
        said = np.concatenate([said, unit(sums)], axis=1)
    assert np.allclose(after.encode(TEXTS), unit(said @ axes.T), atol=2e-3)
    assert after.classify(TEXTS) == before.classify(TEXTS)
    assert after.dim == len(axes)


def test_the_graph_for_a_gpu_turns_them_too(turned):
    weights = read_weights(turned)
    ids = np.array([[2, 9, 11, 3]], np.int64)
    fast = Engine(build(weights, precision="fp32", metadata={}).SerializeToString(), lanes=1)
    gpu = Engine(build_gpu(weights, metadata={}).SerializeToString(), lanes=1)
    feeds = {"input_ids": ids, "lengths": np.array([4], np.int64)}
    found = [
        e.run(Batch(np.arange(1), {k: feeds[k] for k in e.inputs}), "pooled") for e in (fast, gpu)
    ]
    assert np.allclose(*found, atol=0.05) and np.abs(found[0]).max() > 0.3


def test_they_come_back_out_of_a_package(tmp_path, turned):
    package = export(turned, tmp_path / "p", variants=("int8",))
    (tmp_path / "u").mkdir()
    unpack(package, tmp_path / "u")
    for name in ("axes", "lexical"):
        if (turned / f"{name}.safetensors").is_file():
            found, given = (load_file(f / f"{name}.safetensors") for f in (tmp_path / "u", turned))
            # Rows of pieces are rounded as the graph has them.
            exact = {"atol": 0 if name == "axes" else 0.02}
            np.testing.assert_allclose(found["weight"], given["weight"].astype("f4"), **exact)
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
    turn, whole = read_weights(tmp_path / "trimmed").turn, read_weights(turned).turn
    assert (turn.axes == whole.axes).all()
    assert whole.lexical is None or (turn.lexical == whole.lexical[:-1]).all()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": np.eye(5, dtype=np.float32)}, r"shape \[5, 5\], expected \[5, 64\]"),
        ({"weight": np.ones(WIDTH, np.float32)}, "expected weight, a matrix"),
        ({"other": np.eye(WIDTH, dtype=np.float32)}, "has other, expected weight"),
        ({"weight": np.full((WIDTH, WIDTH), np.nan, np.float32)}, "not finite"),
    ],
)
@pytest.mark.parametrize("turned", ["axes"], indirect=True)
def test_other_axes_are_refused(turned, tensors, message):
    save_file(tensors, turned / "axes.safetensors")
    with pytest.raises(InputError, match=message):
        read_weights(turned)


def test_vectors_of_pieces_that_do_not_fit_are_refused(turned):
    for weight, message in (
        (lexical_of()[:-1], r"lexical.safetensors: weight has shape"),
        (np.full((len(PIECES), BESIDE), np.nan, np.float32), "not finite"),
    ):
        save_file({"weight": weight}, turned / "lexical.safetensors")
        with pytest.raises(InputError, match=message):
            read_weights(turned)
    save_file({"weight": lexical_of()}, turned / "lexical.safetensors")
    (turned / "axes.safetensors").unlink()
    with pytest.raises(InputError, match="axes.safetensors: no such file: lexical.safetensors"):
        read_weights(turned)
