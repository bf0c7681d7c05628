"""What is exported also works where people already are."""

import json
import warnings

import numpy as np
import pytest

from export import pack
from export.pack import export
from export.portable import export_portable
from rubert_lite import load
from rubert_lite.errors import PackageError
from tests.export.conftest import write_checkpoint

TEXTS = ["привет, мир", "поезд на дом", "И ещё: слово!", "лук " * 100]


@pytest.fixture(scope="module", params=["distilbert", "bert"])
def package(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write_checkpoint(folder / "c", kind=request.param)
    variants = ("int8", "fp32", "portable", "safetensors", "table")
    return export(folder / "c", folder / "p", variants=variants)


def test_only_the_named_warnings_are_silenced(checkpoint, tmp_path, monkeypatch):
    """A warning that is new must reach us (warnings are errors in these tests)."""
    import optimum.exporters.onnx

    def noisy(*_, **__):
        warnings.warn("a new one", FutureWarning, stacklevel=1)

    monkeypatch.setattr(optimum.exporters.onnx, "main_export", noisy)
    with pytest.raises(FutureWarning, match="a new one"):
        export_portable(checkpoint, tmp_path)


def test_it_loads_in_optimum_and_agrees(package):
    from optimum.onnxruntime import ORTModelForFeatureExtraction
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(package.path)
    model = ORTModelForFeatureExtraction.from_pretrained(
        package.path, subfolder="onnx", file_name="model.onnx"
    )
    inputs = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="np")
    assert inputs["input_ids"].shape == (4, 64)
    states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][:, :, None]
    pooled = (states * mask).sum(1) / mask.sum(1)
    ours = load(package.path, variant="fp32").encode(TEXTS)
    assert np.abs(ours - pooled / np.linalg.norm(pooled, axis=1, keepdims=True)).max() < 1e-5


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_it_loads_in_sentence_transformers_and_agrees(package, backend):
    from sentence_transformers import SentenceTransformer

    options = {"model_kwargs": {"file_name": "onnx/model.onnx"}} if backend == "onnx" else {}
    theirs = SentenceTransformer(str(package.path), device="cpu", backend=backend, **options)
    ours = load(package.path, variant="fp32").encode(TEXTS)
    assert np.abs(ours - theirs.encode(TEXTS)).max() < 1e-5


def test_the_masked_language_model_goes_on_in_transformers(package):
    from transformers import AutoModelForMaskedLM

    model, told = AutoModelForMaskedLM.from_pretrained(package.path, output_loading_info=True)
    assert not told["missing_keys"] and model.config.vocab_size == package.manifest.vocab_size


def test_another_tools_tokenizer_hands_over_what_the_model_takes(package):
    config = json.loads((package.path / "config.json").read_text())
    settings = json.loads((package.path / "tokenizer_config.json").read_text())
    types = ["token_type_ids"] if config["model_type"] == "bert" else []
    assert settings["model_input_names"] == ["input_ids", "attention_mask", *types]


def test_a_portable_graph_that_differs_is_refused(checkpoint, tmp_path, monkeypatch):
    other = write_checkpoint(tmp_path / "other", layers=1)
    monkeypatch.setattr(pack, "export_portable", lambda _, out: export_portable(other, out))
    with pytest.raises(PackageError, match="variant portable: cosine"):
        export(checkpoint, tmp_path / "p", variants=("int8", "portable"))
    assert not (tmp_path / "p").exists()


def test_every_variant_was_compared(package):
    found = package.manifest.metrics["parity"]
    assert list(found) == ["int8", "fp32", "portable"]
    assert found["portable"]["mean_cosine"] >= 0.99999
    assert set(package.manifest.variants) == {"int8", "fp32"}
    assert "onnx/model.onnx" in package.manifest.files
    assert not any("onnx_data" in name for name in package.manifest.files)
