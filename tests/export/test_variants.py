"""Packages of other tasks and variants than the plain encoder's."""

import json

import pytest

from export.pack import export
from export.sample import TEXTS
from rubert_lite import load
from rubert_lite.errors import InputError
from tests.export.conftest import write_checkpoint


@pytest.mark.parametrize("kind", ["distilbert", "bert"])
def test_a_head_on_pieces_gives_a_package_that_tags_and_encodes(tmp_path, kind):
    folder = write_checkpoint(tmp_path / "c", kind=kind, labels=3, task="token-classification")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "O", "1": "B-X", "2": "I-X"}
    (folder / "config.json").write_text(json.dumps(config))
    package = export(folder, tmp_path / "p", variants=("fp32", "int8"))
    assert package.manifest.task == "token-classification"
    parity = package.manifest.metrics["parity"]
    assert parity["fp32"]["logits_difference"] < 1e-4 < parity["int8"]["logits_difference"] < 3
    texts = [*TEXTS, "привет, мир " * 60]
    model = load(package.path)
    for text, entities in zip(texts, model.tag(texts), strict=True):
        assert all(text[e.start : e.end] == e.text and e.label == "X" for e in entities)
    assert any(model.tag(texts)) and model.encode(texts).shape == (len(texts), 64)


def test_static_scales_need_texts(checkpoint, tmp_path):
    with pytest.raises(InputError, match="int8-static: 3 texts, expected at least 200"):
        export(checkpoint, tmp_path / "p", variants=("int8-static",), texts=["а", "б", "в"])
    texts = [" ".join(("привет", "мир", "дом", str(i))) for i in range(200)]
    package = export(checkpoint, tmp_path / "p", variants=("int8-static", "int8"), texts=texts)
    parity = package.manifest.metrics["parity"]
    assert parity["int8-static"]["batch_difference"] <= 1e-6
    assert parity["int8-static"]["mean_cosine"] > 0.999
    assert load(package.path).variant == "int8-static"


def test_an_unknown_task_is_refused(tmp_path):
    folder = write_checkpoint(tmp_path / "c", labels=3, task="translation")
    with pytest.raises(InputError, match="finetuning_task 'translation', expected one of"):
        export(folder, tmp_path / "p")
