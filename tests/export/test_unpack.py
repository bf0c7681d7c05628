"""From a package back to a checkpoint."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModel

from export.__main__ import main
from export.pack import export
from export.remap import trim, write_table
from export.sample import TEXTS
from export.unpack import unpack
from rubert_lite import load
from rubert_lite.errors import InputError
from rubert_lite.locate import locate
from rubert_lite.package import ModelPackage
from tests.export.conftest import write_checkpoint

KINDS = {
    "distilbert": {},
    "bert": {"kind": "bert"},
    "bert with one token type": {"kind": "bert", "types": 1},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("variants", [("fp32", "int8"), ("int8",), ("int4",)])
def test_what_comes_back_gives_the_vectors_of_the_graph(tmp_path, kind, variants):
    folder = write_checkpoint(tmp_path / "c", labels=3, **kind)
    package = export(folder, tmp_path / "p", variants=variants)
    (tmp_path / "u").mkdir()
    unpack(package, tmp_path / "u")
    again = export(tmp_path / "u", tmp_path / "again", variants=variants[:1])
    assert again.manifest.labels == package.manifest.labels and len(again.manifest.labels) == 3
    rounded = (
        {}
        if variants[0] == "fp32"
        else {"weights": f"read from the graph {variants[0]} of p, rounded as it is"}
    )
    assert again.manifest.provenance == package.manifest.provenance | rounded
    first, second = load(package.path), load(again.path)
    assert np.abs(first.encode(TEXTS) - second.encode(TEXTS)).max() < 1e-5
    for one, other in zip(first.classify(TEXTS), second.classify(TEXTS), strict=True):
        assert max(abs(one.scores[k] - other.scores[k]) for k in one.scores) < 1e-5
    model, info = AutoModel.from_pretrained(
        tmp_path / "u", output_loading_info=True, **({"add_pooling_layer": False} if kind else {})
    )
    assert not info["missing_keys"]
    if variants[0] == "fp32":
        original = AutoModel.from_pretrained(folder).state_dict()
        found = model.state_dict()
        rows = [k for k in found if "word_embeddings" in k or k.endswith("lin1.weight")]
        assert all(torch.equal(found[k], original[k]) for k in rows) and rows


@pytest.mark.parametrize("variant", ["int8-static", "int4-static"])
def test_weights_come_out_of_static_graphs(tmp_path, checkpoint, variant):
    texts = [" ".join(("привет", "мир", "дом", str(i))) for i in range(200)]
    package = export(checkpoint, tmp_path / "p", variants=(variant,), texts=texts)
    (tmp_path / "u").mkdir()
    unpack(package, tmp_path / "u")
    again = export(tmp_path / "u", tmp_path / "again", variants=("fp32",))
    found, expected = load(again.path).encode(texts), load(package.path).encode(texts)
    assert (found * expected).sum(1).min() > 0.999


@pytest.mark.parametrize("labels", [0, 3])
def test_a_package_with_its_weights_loses_nothing(tmp_path, labels):
    folder = write_checkpoint(tmp_path / "c", labels=labels)
    training = {"teacher": "учитель", "license": "CC0-1.0", "corpora": [], "lineage": []}
    (folder / "training.json").write_text(json.dumps(training), encoding="utf-8")
    (folder / "LICENSE").write_text("the licence")
    ids = [-1] * 186
    (folder / "vocabulary.json").write_text(json.dumps({"teacher_ids": ids, "method": "train"}))
    package = export(folder, tmp_path / "p", variants=("int4", "safetensors"))
    assert main([str(package.path), "--to", str(tmp_path / "q"), "--variants", "fp32,table"]) == 0
    again = ModelPackage.open(tmp_path / "q")
    for name in ("license", "labels", "task", "teacher", "provenance"):
        assert getattr(again.manifest, name) == getattr(package.manifest, name)
    assert (again.path / "LICENSE").read_text() == "the licence"
    assert "\n7\t-1\t" in (again.path / "vocab.tsv").read_text("utf-8")
    straight = export(folder, tmp_path / "r", variants=("fp32",))
    found, expected = load(again.path).encode(TEXTS), load(straight.path).encode(TEXTS)
    assert np.array_equal(found, expected)  # the weights, not what int4 made of them
    if labels:
        assert load(again.path).classify(TEXTS[:3]) == load(straight.path).classify(TEXTS[:3])


def test_weights_alone_do_where_no_graph_can_be_read(tmp_path, checkpoint):
    package = export(checkpoint, tmp_path / "p", variants=("fp16", "safetensors"))
    (tmp_path / "u").mkdir()
    unpack(package, tmp_path / "u")
    assert (tmp_path / "u" / "model.safetensors").is_file()


def test_a_vocabulary_of_its_own_claims_no_ids_of_a_teacher(tmp_path):
    package = ModelPackage.open(locate("distil-16k"))
    (tmp_path / "u").mkdir()
    unpack(package, tmp_path / "u")
    write_table(tmp_path / "u", tmp_path / "vocab.tsv")
    assert "\n100\t-1\t" in (tmp_path / "vocab.tsv").read_text("utf-8")
    assert (tmp_path / "u" / "LICENSE").is_file()
    trim(tmp_path / "u", range(1000), tmp_path / "t")
    training = json.loads((tmp_path / "t" / "training.json").read_text("utf-8"))
    assert training["pieces"] == 1000 and training["parameters"] < 2_500_000
    assert "graph int4-static of distil-16k" in training["weights"]


def test_a_variant_without_readable_weights_is_told(tmp_path, checkpoint):
    package = export(checkpoint, tmp_path / "p", variants=("fp16",))
    (tmp_path / "u").mkdir()
    with pytest.raises(InputError, match="variants fp16: weights can be read from fp32"):
        unpack(package, tmp_path / "u")


def test_a_shipped_model_is_exported_anew_by_its_name(tmp_path, capsys):
    words = ["distil-16k", "--to", str(tmp_path / "p"), "--variants", "int4,safetensors"]
    assert main(words) == 0, capsys.readouterr().err
    package = ModelPackage.open(tmp_path / "p")
    shipped = load("distil-16k")
    assert package.manifest.labels == shipped.labels
    found, expected = load(package.path).encode(TEXTS), shipped.encode(TEXTS)
    assert (found * expected).sum(1).min() > 0.98
    config = json.loads((tmp_path / "p" / "config.json").read_text())
    rows = AutoModel.from_pretrained(tmp_path / "p").get_input_embeddings().weight
    assert rows.shape == (config["vocab_size"], config["dim"])
    assert np.isfinite(rows.detach().numpy()).all()
