"""Vectors are found again where nothing that they depend on has changed, and only there."""

import json

import pytest

from train import line_vectors
from train.encoders import USE
from train.folders import fingerprint_source
from train.line_vectors import cache_name


def test_names_that_said_all_stay_as_they_were(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    package, plain = tmp_path / "package", tmp_path / "plain"
    for folder, file in ((package, "manifest.json"), (plain, "model.safetensors")):
        folder.mkdir()
        (folder / file).write_text("{}")
    for folder in (package, plain):
        assert cache_name(str(folder)) == f"{folder.name}-{fingerprint_source(str(folder))}"
    assert len(cache_name(str(package))) == len("package-") + 16
    monkeypatch.setattr(line_vectors, "package_version", lambda name: "0.2.1")
    assert cache_name(USE) == f"{USE}-0.2.1"
    monkeypatch.setattr(line_vectors, "package_version", lambda name: "")
    assert cache_name("intfloat/multilingual-e5-small") == (
        "multilingual-e5-small-intfloat-multili"
    )


def test_another_pooling_is_another_encoder(tmp_path):
    pooling = tmp_path / "1_Pooling" / "config.json"
    pooling.parent.mkdir()
    (tmp_path / "model.safetensors").write_text("weights")
    names = set()
    for mode in ("mean", "cls"):
        pooling.write_text(json.dumps({"mode": mode}))
        names.add(cache_name(str(tmp_path)))
    assert len(names) == 2


@pytest.mark.parametrize("revision", ["", "v1"])
def test_one_name_of_two_owners_is_two_encoders(revision):
    owners = ("sentence-transformers", "sentence-transformations", "someone")
    names = {cache_name(f"{owner}/x", revision) for owner in owners}
    assert len(names) == 3 and not any("/" in name for name in names)
    assert cache_name("intfloat/x", "v1") != cache_name("intfloat/x", "v2")
    assert cache_name("intfloat/x", "v1") != cache_name("someone/x", "v1")


def test_a_folder_is_known_by_what_lies_there_not_by_a_revision(tmp_path):
    (tmp_path / "model.safetensors").write_text("weights")
    before = cache_name(str(tmp_path), "v1")
    (tmp_path / "model.safetensors").write_text("others")
    assert cache_name(str(tmp_path), "v1") != before


def test_weights_that_were_replaced_in_a_stage_are_another_encoder(tmp_path):
    record = {"settings": {}, "inputs": {}, "version": "1"}
    (tmp_path / "stage.json").write_text(json.dumps(record))
    names = set()
    for weights in ("weights", "others!"):
        (tmp_path / "model.safetensors").write_text(weights)
        names.add(cache_name(str(tmp_path)))
    assert len(names) == 2
