import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch
from transformers import AutoModel

from export.remap import trim
from export.weights import read_weights
from rubert_lite.errors import InputError
from tests.export.conftest import write_checkpoint


@pytest.mark.parametrize("kind", ["distilbert", "bert"])
def test_names_with_and_without_a_prefix_give_the_same_weights(tmp_path, kind):
    full = write_checkpoint(tmp_path / "full", kind=kind)
    AutoModel.from_pretrained(full).save_pretrained(tmp_path / "plain")
    names = load_file(tmp_path / "plain" / "model.safetensors")
    assert not any(n.startswith(kind) for n in names)
    one, two = read_weights(full), read_weights(tmp_path / "plain")
    assert (one.pieces == two.pieces).all() and (one.positions == two.positions).all()
    for a, b in zip(one.layers, two.layers, strict=True):
        assert (a.key.weight == b.key.weight).all() and (a.norm2.bias == b.norm2.bias).all()
    assert (one.types is None) == (kind == "distilbert")
    epsilon = 1e-12 if kind == "distilbert" else 1e-5  # fixed in code, and configured
    assert (one.heads, one.epsilon, len(one.layers)) == (4, epsilon, 2)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(checkpoint, kind):
    path = checkpoint / "model.safetensors"
    tensors = load_torch(path)
    save_torch({k: v.to(kind) for k, v in tensors.items()}, path, metadata={"format": "pt"})
    weights = read_weights(checkpoint)
    assert weights.pieces.dtype == np.float32
    assert (weights.pieces == tensors[EMBEDDINGS].to(kind).float().numpy()).all()
    trim(checkpoint, range(20), checkpoint / "trimmed")
    assert (read_weights(checkpoint / "trimmed").pieces == weights.pieces[:20]).all()


def test_numpy_knows_bfloat16_in_a_fresh_process():
    code = "import export.weights, numpy; numpy.dtype('bfloat16')"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def change(path, name, value):
    save_file({**load_file(path), name: value}, path)


EMBEDDINGS = "distilbert.embeddings.word_embeddings.weight"


def test_tensors_that_do_not_fit_are_told(checkpoint):
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    name = "distilbert.transformer.layer.0.sa_layer_norm.weight"
    save_file({k: v for k, v in tensors.items() if k != name}, path)
    with pytest.raises(InputError, match=f"no tensor '{name}'"):
        read_weights(checkpoint)
    save_file(tensors, path)
    rows = tensors[EMBEDDINGS]
    change(path, EMBEDDINGS, rows[:-1])
    with pytest.raises(
        InputError, match=rf"shape \[{len(rows) - 1}, 64\], expected \[{len(rows)}, 64\]"
    ):
        read_weights(checkpoint)
    change(path, EMBEDDINGS, np.where(np.arange(len(rows))[:, None] == 3, np.nan, rows))
    with pytest.raises(InputError, match="not finite"):
        read_weights(checkpoint)


def test_other_ways_to_keep_weights_are_told(checkpoint):
    path = checkpoint / "model.safetensors"
    save_torch({"a": torch.ones(2, dtype=torch.float8_e4m3fn)}, path)
    with pytest.raises(InputError, match=r"float8.*expected float32"):
        read_weights(checkpoint)
    path.write_bytes(b"garbage")
    with pytest.raises(InputError, match="cannot be read"):
        read_weights(checkpoint)
    path.unlink()
    (checkpoint / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match="several files"):
        read_weights(checkpoint)
    (checkpoint / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="pickled"):
        read_weights(checkpoint)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("distilbert", {"activation": "relu"}, "activation 'relu', expected 'gelu'"),
        ("bert", {"hidden_act": "gelu_new"}, "hidden_act 'gelu_new'"),
        ("bert", {"position_embedding_type": "relative_key"}, "'relative_key'"),
        ("bert", {"is_decoder": True}, "is_decoder True"),
        ("distilbert", {"model_type": "gpt2"}, "'gpt2', expected one of distilbert, bert"),
        ("distilbert", {"n_heads": 5}, "64 is no multiple of 5 heads"),
        ("distilbert", {"n_layers": None}, "n_layers = None, expected a size"),
        ("distilbert", {"dim": "64"}, "dim = '64', expected a size"),
        ("distilbert", {"n_layers": 3}, "layer.2.attention"),
    ],
)
def test_a_configuration_that_we_do_not_compute_is_refused(tmp_path, kind, changes, message):
    folder = write_checkpoint(tmp_path / "c", kind=kind)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(InputError, match=message):
        read_weights(folder)


@pytest.mark.parametrize("text", ["[]", "{", "\xff"])
def test_a_configuration_that_is_no_object_is_told(checkpoint, text):
    (checkpoint / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"config\.json: (not JSON|a JSON list)"):
        read_weights(checkpoint)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": np.ones((3, 63))}, "has weight, expected weight and bias"),
        ({"weight": np.ones((3, 63)), "bias": np.ones(3)}, r"\[3, 63\], expected \[3, 64\]"),
        ({"weight": np.ones((3, 64)), "bias": np.ones(2)}, r"\[3, 64\], expected \[2, 64\]"),
        ({"weight": np.ones((3, 64)), "bias": np.full(3, np.inf)}, "bias is not finite"),
    ],
)
def test_a_head_that_does_not_fit_is_told(checkpoint, tensors, message):
    save_file(tensors, checkpoint / "head.safetensors")
    with pytest.raises(InputError, match=message):
        read_weights(checkpoint)
