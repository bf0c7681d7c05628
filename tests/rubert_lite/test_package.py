"""Model packages: whole and as they were made, or refused."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubert_lite.errors import PackageError
from rubert_lite.package import (
    MANIFEST,
    FileEntry,
    Manifest,
    ModelPackage,
    seal,
    sha256_of,
)


def rewrite(directory: Path, **changes: Any) -> None:
    """Change keys of a manifest; `...` removes one."""
    path = directory / MANIFEST
    values = json.loads(path.read_text("utf-8")) | changes
    values = {k: v for k, v in values.items() if v is not ...}
    path.write_text(json.dumps(values), "utf-8")


def manifest_of(directory: Path) -> Manifest:
    return ModelPackage.open(directory).manifest


def test_sealed_package_opens_and_tells_its_files(make_package: Any) -> None:
    package = ModelPackage.open(make_package())
    assert set(package.manifest.files) == {"tokenizer.json", "fast.fp32.onnx"}
    tokenizer = package.file("tokenizer.json")
    assert package.manifest.tokenizer_sha256 == sha256_of(tokenizer)
    assert package.read("tokenizer.json") == tokenizer.read_bytes()
    for call in (package.file, package.read):
        with pytest.raises(PackageError, match="'absent' is not among"):
            call("absent")


def test_manifest_survives_a_round_trip(make_package: Any) -> None:
    manifest = manifest_of(make_package(labels=("да", "нет")))
    data = manifest.to_json()
    assert Manifest.from_json(data, where="m") == manifest
    assert "да" in data.decode("utf-8")


def test_what_a_classifier_reads_may_be_recorded(make_package: Any) -> None:
    plain, pairs = (
        manifest_of(make_package(f"p{given}", labels=("a", "b"), inputs=given))
        for given in ("", "pairs")
    )
    assert "inputs" not in json.loads(plain.to_json()) and plain.inputs == ""
    assert Manifest.from_json(pairs.to_json(), where="m").inputs == "pairs"
    with pytest.raises(PackageError, match="inputs of a package for embedding: only a classifier"):
        Manifest.from_json(pairs.to_json().replace(b'"classification"', b'"embedding"'), where="m")
    with pytest.raises(PackageError, match="inputs 'x', expected one of texts, pairs"):
        Manifest.from_json(pairs.to_json().replace(b'"pairs"', b'"x"'), where="m")


def test_newer_format_is_told_first(make_package: Any) -> None:
    directory = make_package()
    rewrite(directory, format=3, labels=..., a_new_key=1)
    with pytest.raises(
        PackageError,
        match="manifest.json: format 3, this version reads 1: pip install -U rubert-lite",
    ):
        ModelPackage.open(directory)


def test_missing_directory_or_manifest(tmp_path: Path, make_package: Any) -> None:
    directory = make_package()
    (directory / MANIFEST).unlink()
    for path in (directory, tmp_path / "nowhere"):
        with pytest.raises(PackageError, match=r"no manifest\.json"):
            ModelPackage.open(path)


def test_missing_file(make_package: Any) -> None:
    directory = make_package()
    (directory / "tokenizer.json").unlink()
    with pytest.raises(PackageError, match=r"tokenizer\.json: missing"):
        ModelPackage.open(directory)


def test_truncated_file(make_package: Any) -> None:
    directory = make_package()
    path = directory / "fast.fp32.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PackageError, match=r"fast\.fp32\.onnx: \d+ bytes, expected \d+"):
        ModelPackage.open(directory)


def test_tampered_file_of_equal_size(make_package: Any) -> None:
    directory = make_package()
    path = directory / "fast.fp32.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(PackageError, match="the file was changed"):
        ModelPackage.open(directory)
    package = ModelPackage.open(directory, verify=False)
    with pytest.raises(PackageError, match="the file was changed"):
        package.read("fast.fp32.onnx")


def test_unknown_file_is_tolerated_but_not_readable(make_package: Any) -> None:
    directory = make_package()
    (directory / ".gitattributes").write_text("*.onnx filter=lfs")
    package = ModelPackage.open(directory)
    with pytest.raises(PackageError, match="not among"):
        package.file(".gitattributes")


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/passwd", "a/../b", "a\\b", "C:evil", "", ".", "..", "a//b", "a/", ".hidden",
     "a\n", "manifest.json", "а.bin"],
)  # fmt: skip
def test_path_tricks_are_refused(make_package: Any, name: str) -> None:
    directory = make_package()
    files = json.loads((directory / MANIFEST).read_text())["files"]
    rewrite(directory, files=files | {name: files["tokenizer.json"]})
    with pytest.raises(PackageError, match="is not a plain relative path"):
        ModelPackage.open(directory, verify=False)


def test_link_out_of_the_package_is_refused(make_package: Any, tmp_path: Path) -> None:
    directory = make_package()
    outside = tmp_path / "outside.json"
    (directory / "tokenizer.json").rename(outside)
    (directory / "tokenizer.json").symlink_to(outside)
    with pytest.raises(PackageError, match="a link to"):
        ModelPackage.open(directory)


def test_links_of_the_hub_cache_are_followed_into_its_blobs_only(
    make_package: Any, tmp_path: Path
) -> None:
    snapshot = make_package("models--a--b/snapshots/0f0f")
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    for name in ("tokenizer.json", "fast.fp32.onnx", MANIFEST):
        (snapshot / name).rename(blobs / name)
        (snapshot / name).symlink_to(Path("../../blobs") / name)
    ModelPackage.open(snapshot).read("tokenizer.json")
    outside = tmp_path / "tokenizer.json"
    (blobs / "tokenizer.json").rename(outside)
    (snapshot / "tokenizer.json").unlink()
    (snapshot / "tokenizer.json").symlink_to(outside)
    with pytest.raises(PackageError, match="a link to"):
        ModelPackage.open(snapshot)


def test_linked_directory_opens(make_package: Any, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(make_package())
    ModelPackage.open(tmp_path / "link").read("tokenizer.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": ...}, "teacher is missing"),
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"hidden_size": "8"}, "hidden_size is a str, expected int"),
        ({"hidden_size": True}, "hidden_size is a bool, expected int"),
        ({"normalize": 1}, "normalize is a int, expected bool"),
        ({"max_length": 2}, "leaves no room"),
        ({"vocab_size": 0}, "vocab_size = 0"),
        ({"task": "poetry"}, "task 'poetry'"),
        ({"task": "classification"}, "without labels"),
        ({"task": "question-answering", "labels": ["a", "b", "c"]}, "expected two, the ends"),
        ({"labels": [1]}, "labels are not all strings"),
        ({"labels": ["a", "a"]}, "a label stands twice"),
        ({"labels": ["a\x1b[31m"]}, "labels are not all printable"),
        ({"version": "1\n\x1b[2J"}, "expected one line of printable characters"),
        ({"pooling": "cls"}, "pooling 'cls'"),
        ({"truncate_dims": [9]}, r"truncate_dims \[9\]"),
        ({"variants": {"fp32": "absent.onnx"}}, "which is not among the files"),
        ({"variants": {"fp32": []}}, "which is not among the files"),
        ({"variants": {"\x1b[31m": "absent.onnx"}}, r"variant '\\x1b\[31m', expected printable"),
        ({"metrics": {"a": "\ud800"}}, "surrogates not allowed"),
        ({"default_variant": "int8"}, "default_variant 'int8'"),
        ({"tokenizer_sha256": "0" * 64}, "tokenizer_sha256 is not the hash"),
        ({"files": {}}, r"tokenizer\.json is not among the files"),
        ({"files": {"tokenizer.json": 1}}, "expected its size and sha256"),
        ({"files": {"tokenizer.json": {"size": -1, "sha256": "0" * 64}}}, "its size and sha256"),
        ({"files": {"tokenizer.json": {"size": 1, "sha256": "XYZ"}}}, "its size and sha256"),
        ({"format": "1"}, "no format number"),
        ({"format": True}, "no format number"),
        ({"format": 0}, "format 0, this version reads 1: export the model again"),
    ],
)
def test_manifest_faults(make_package: Any, changes: dict[str, Any], message: str) -> None:
    directory = make_package()
    rewrite(directory, **changes)
    with pytest.raises(PackageError, match=message):
        ModelPackage.open(directory)


def test_all_faults_are_told_at_once(make_package: Any) -> None:
    directory = make_package()
    rewrite(directory, teacher=..., labels=3)
    with pytest.raises(PackageError, match="teacher is missing; labels is a int, expected list"):
        ModelPackage.open(directory)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"format": 1' + b"0" * 5000],
    ids=["empty", "open", "list", "null", "string", "utf16", "deep", "huge"],
)
def test_what_is_not_a_manifest(data: bytes) -> None:
    with pytest.raises(PackageError, match="where: "):
        Manifest.from_json(data, where="where")


def test_endless_manifest_is_not_read(make_package: Any) -> None:
    directory = make_package()
    with (directory / MANIFEST).open("ab") as file:
        file.write(b" " * (1 << 20))
    with pytest.raises(PackageError, match="not a manifest"):
        ModelPackage.open(directory)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_KEYS = ["format", "files", "variants", "labels", "truncate_dims", "task", "default_variant"]


@given(st.dictionaries(st.sampled_from(_KEYS), _JSON))
def test_any_manifest_is_read_or_refused(changes: dict[str, Any]) -> None:
    entry = FileEntry(1, "0" * 64)
    good = Manifest(
        "n", "1", "l", "t", "embedding", (), 9, 8, 16, "mean", True, (), {"a": "tokenizer.json"},
        "a", "0" * 64, {"tokenizer.json": entry},
    )  # fmt: skip
    values = json.loads(good.to_json()) | changes
    try:
        Manifest.from_json(json.dumps(values).encode(), where="m")
    except PackageError as error:
        assert str(error).startswith("m: ")


def test_nan_in_metrics_is_not_written(make_package: Any) -> None:
    directory = make_package()
    rewrite(directory, metrics={"loss": float("nan")})
    manifest = ModelPackage.open(directory).manifest
    with pytest.raises(PackageError, match="expected finite numbers"):
        manifest.to_json()


def test_seal_refuses_links_and_a_wrong_tokenizer(make_package: Any, tmp_path: Path) -> None:
    directory = make_package()
    manifest = manifest_of(directory)
    (directory / "extra").symlink_to(tmp_path)
    with pytest.raises(PackageError, match="extra: a link"):
        seal(directory, manifest)
    (directory / "extra").unlink()
    (directory / "tokenizer.json").write_text("{}")
    with pytest.raises(PackageError, match="tokenizer_sha256 is not the hash"):
        seal(directory, manifest)


def test_seal_lists_files_in_folders(make_package: Any) -> None:
    directory = make_package()
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text("{}")
    assert "1_Pooling/config.json" in seal(directory, manifest_of(directory)).files
    assert ModelPackage.open(directory).file("1_Pooling/config.json").read_text() == "{}"


def test_full_disk_while_sealing_leaves_no_manifest(
    make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_package()
    manifest = manifest_of(directory)
    (directory / MANIFEST).unlink()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        seal(directory, manifest)
    assert {p.name for p in directory.iterdir()} == {"tokenizer.json", "fast.fp32.onnx"}
