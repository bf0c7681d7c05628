"""The parts of a package must belong to each other."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from rubert_lite import InputError, PackageError, load
from rubert_lite.package import ModelPackage, seal, sha256_of


def change_tokenizer(directory: Path, **changes: Any) -> None:
    """Seal a package again with another tokenizer.json, which its manifest then describes."""
    manifest = ModelPackage.open(directory).manifest
    path = directory / "tokenizer.json"
    spec = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(spec | changes), "utf-8")
    seal(directory, replace(manifest, tokenizer_sha256=sha256_of(path)))


def test_loads_and_encodes(shared_package: Path) -> None:
    for name in (shared_package, str(shared_package)):
        assert load(name).encode(["мир"]).shape == (1, 8)


def test_changed_files_are_refused_with_and_without_verify(make_package: Any) -> None:
    directory = make_package()
    (directory / "README.md").write_text("1")
    seal(directory, ModelPackage.open(directory).manifest)
    (directory / "README.md").write_text("2")
    with pytest.raises(PackageError, match=r"README\.md: sha256"):
        load(directory)
    load(directory, verify=False)
    for name in ("tokenizer.json", "fast.fp32.onnx"):
        path = directory / name
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(PackageError, match=f"{name}: sha256"):
            load(directory, verify=False)
        path.write_bytes(before)


def test_tokenizer_of_another_graph_is_refused(make_package: Any) -> None:
    directory = make_package()
    change_tokenizer(directory, decoder=None)
    with pytest.raises(PackageError, match="graph and tokenizer do not belong together"):
        load(directory)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"rubert_lite.tokenizer_sha256": "0" * 64}, "tokenizer_sha256 000000000000"),
        ({"rubert_lite.vocab_size": "7"}, "vocab_size 7, the package has"),
    ],
)
def test_graph_made_for_something_else(
    make_package: Any, metadata: dict[str, str], message: str
) -> None:
    with pytest.raises(PackageError, match=message):
        load(make_package(metadata=metadata))


def test_graph_that_says_nothing_is_refused(make_package: Any) -> None:
    directory = make_package(metadata={})
    load(directory)
    model = onnx.load(directory / "fast.fp32.onnx")
    model.ClearField("metadata_props")
    onnx.save(model, directory / "fast.fp32.onnx")
    seal(directory, ModelPackage.open(directory, verify=False).manifest)
    with pytest.raises(PackageError, match="tokenizer_sha256 None"):
        load(directory)


def test_graph_without_an_output_is_refused(make_package: Any) -> None:
    with pytest.raises(PackageError, match="no output 'pooled': it has sentence_embedding"):
        load(make_package(outputs=("sentence_embedding",)))
    labels = ("да", "нет")
    with pytest.raises(PackageError, match="no output 'logits'"):
        load(make_package("b", labels=labels, outputs=("pooled", "sentence_embedding")))


def test_graph_with_other_labels_is_refused(make_package: Any) -> None:
    directory = make_package(labels=("a", "b", "c"))
    manifest = ModelPackage.open(directory).manifest
    seal(directory, replace(manifest, labels=("a", "b")))
    with pytest.raises(PackageError, match="logits has 3 columns, expected 2"):
        load(directory)


def test_graph_with_other_inputs_is_refused(make_package: Any) -> None:
    directory = make_package(with_types=True)
    model = onnx.load(directory / "fast.fp32.onnx")
    for node in model.graph.node:
        node.input[:] = ["attention_mask" if i == "token_type_ids" else i for i in node.input]
    model.graph.input[1].name = "attention_mask"
    onnx.save(model, directory / "fast.fp32.onnx")
    seal(directory, ModelPackage.open(directory, verify=False).manifest)
    with pytest.raises(PackageError, match="inputs input_ids, attention_mask, expected input_ids"):
        load(directory)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"post_processor": None}, "expected BERT's"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizer of type 'Lowercase'"),
        ({"model": {"type": "WordPiece"}}, "no vocabulary"),
        ({"added_tokens": 7}, "not a tokenizer"),
    ],
)  # fmt: skip
def test_odd_tokenizers_are_refused(
    make_package: Any, changes: dict[str, Any], message: str
) -> None:
    directory = make_package()
    change_tokenizer(directory, **changes)
    with pytest.raises(PackageError, match=message):
        load(directory)


def test_added_piece_without_a_row_is_refused(make_package: Any) -> None:
    directory = make_package()
    spec = json.loads((directory / "tokenizer.json").read_text("utf-8"))
    new = spec["added_tokens"][0] | {"id": 5000, "content": "<new>"}
    change_tokenizer(directory, added_tokens=[*spec["added_tokens"], new])
    with pytest.raises(PackageError, match=r"added id \d+, but the model has \d+ rows"):
        load(directory)


@pytest.mark.parametrize("data", [b"[]", b"{", b"\xff", b"[" * 100_000])
def test_tokenizer_that_is_no_json_object(make_package: Any, data: bytes) -> None:
    directory = make_package()
    manifest = ModelPackage.open(directory).manifest
    path = directory / "tokenizer.json"
    path.write_bytes(data)
    seal(directory, replace(manifest, tokenizer_sha256=sha256_of(path)))
    with pytest.raises(PackageError, match=r"tokenizer\.json: (not JSON|a JSON list)"):
        load(directory)


def test_vocabulary_larger_than_the_graph_is_refused(make_package: Any) -> None:
    directory = make_package()
    manifest = ModelPackage.open(directory).manifest
    seal(directory, replace(manifest, vocab_size=20))
    with pytest.raises(PackageError, match=r"highest id \d+, but the model has only 20 rows"):
        load(directory)


def test_padding_and_truncation_in_the_file_change_nothing(
    make_package: Any, shared_package: Path
) -> None:
    directory = make_package()
    padding = {"strategy": {"Fixed": 12}, "direction": "Right", "pad_to_multiple_of": None,
               "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}  # fmt: skip
    truncation = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    path = directory / "tokenizer.json"
    spec = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(spec | {"padding": padding, "truncation": truncation}), "utf-8")
    digest = sha256_of(path)
    model = onnx.load(directory / "fast.fp32.onnx")
    for entry in model.metadata_props:
        if entry.key.endswith("sha256"):
            entry.value = digest
    onnx.save(model, directory / "fast.fp32.onnx")
    manifest = ModelPackage.open(directory, verify=False).manifest
    seal(directory, replace(manifest, tokenizer_sha256=digest))
    texts = ["мир день дождь", ""]
    assert np.array_equal(load(directory).encode(texts), load(shared_package).encode(texts))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "int9"}, "no variant 'int9', it has fp32"),
        ({"variant": ""}, "no variant ''"),
        ({"lanes": 0}, "lanes = 0: expected at least 1"),
        ({"lanes": "two"}, "lanes = 'two'"),
    ],
)
def test_wrong_arguments(shared_package: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(shared_package, **arguments)
