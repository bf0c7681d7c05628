"""Input and surroundings that nobody wishes for: each gets a message, and nothing is lost."""

import gzip
import io
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from rubert_lite import InputError, Model, PackageError, ProviderError, load
from rubert_lite.cli import main
from rubert_lite.locate import available_models, locate
from rubert_lite.package import ModelPackage, seal
from rubert_lite.predictions import Entity
from rubert_lite.progress import Progress

from .test_loading import change_tokenizer


@pytest.mark.parametrize(("choice", "error"), [("variant", InputError), ("device", ProviderError)])
def test_a_list_is_no_choice(shared_package: Path, choice: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"\[\]"):
        load(shared_package, **{choice: []})


def test_a_list_is_no_dtype(model: Model) -> None:
    with pytest.raises(InputError, match=r"dtype \[\]: expected one of"):
        model.encode(["мир"], dtype=[])  # type: ignore[arg-type]


def test_errors_of_a_package_name_it(make_package: Any, shared_package: Path) -> None:
    tokenizer = make_package("one")
    change_tokenizer(tokenizer, model={"type": "BPE"})
    with pytest.raises(PackageError, match=f"{tokenizer}: tokenizer.json: model type 'BPE'"):
        load(tokenizer)
    parts = make_package("two")
    change_tokenizer(parts, normalizer={"type": "Sequence", "normalizers": 5})
    with pytest.raises(PackageError, match=f"{parts}/tokenizer.json: not a tokenizer"):
        load(parts)
    graph = make_package("three")
    manifest = ModelPackage.open(graph).manifest
    [name] = manifest.variants.values()
    (graph / name).write_bytes(b"no graph")
    seal(graph, manifest)
    with pytest.raises(PackageError, match=f"{graph / name}: .*onnxruntime cannot load it"):
        load(graph)


def test_a_broken_gz_is_told(
    shared_package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = random.Random(0)
    lines = ("".join(words.choices("абвгд ", k=60)) + "\n" for _ in range(500))
    data = bytearray(gzip.compress("".join(lines).encode()))
    data[2000:2100] = bytes(b ^ 255 for b in data[2000:2100])
    path = tmp_path / "texts.txt.gz"
    path.write_bytes(data)
    assert main(["encode", str(shared_package), str(path)]) == 1
    assert f"{path}: cannot be read (" in capsys.readouterr().err


def test_a_broken_parquet_is_told(
    shared_package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "texts.parquet"
    parquet.write_table(pyarrow.table({"text": ["мир"] * 5000}), path, use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[50:200] = bytes(b ^ 255 for b in data[50:200])
    path.write_bytes(data)
    assert main(["encode", str(shared_package), str(path)]) == 1
    assert f"rubert-lite: {path}: cannot be read after row 0 (" in capsys.readouterr().err
    twice = pyarrow.Table.from_arrays([pyarrow.array(["а"])] * 2, names=["text", "text"])
    parquet.write_table(twice, path)
    assert main(["encode", str(shared_package), str(path)]) == 1
    assert f"{path}: more than one column 'text'" in capsys.readouterr().err


def test_the_texts_are_not_written_over(
    shared_package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "мир"}\n', "utf-8")
    (tmp_path / "same.jsonl").symlink_to(path)
    for output in (path, tmp_path / "same.jsonl"):
        words = ["encode", str(shared_package), str(path), "--field", "text", "--output"]
        assert main([*words, str(output)]) == 1
        assert "holds the texts: write the vectors to another --output" in capsys.readouterr().err
    assert path.read_text("utf-8") == '{"text": "мир"}\n'


def test_nor_are_those_of_standard_input(
    shared_package: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, side = tmp_path / "t.jsonl", tmp_path / "v.npy.meta.json"
    for texts, output in ((path, path), (side, tmp_path / "v.npy")):
        texts.write_text('{"text": "мир"}\n', "utf-8")
        with texts.open(encoding="utf-8") as file:
            monkeypatch.setattr("sys.stdin", file)
            words = ["encode", str(shared_package), "-", "--field", "text", "--output"]
            assert main([*words, str(output)]) == 1
        assert f"{texts}: holds the texts" in capsys.readouterr().err
        assert texts.read_text("utf-8") == '{"text": "мир"}\n'


def test_a_surrogate_is_printed_as_json_writes_it(
    make_package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = make_package("tagger", task="token-classification", labels=("O", "B-X", "I-X"))
    path = tmp_path / "texts.jsonl"
    path.write_bytes(b'{"text": "\\ud83d"}\n')
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr(Model, "tag", lambda _, texts: [[Entity("X", 0, 1, t, 1)] for t in texts])
    assert main(["tag", str(package), str(path), "--field", "text"]) == 0
    [entity] = json.loads(out.buffer.getvalue())["entities"]  # type: ignore[attr-defined]
    assert entity["text"] == "\ud83d"


def test_a_folder_that_is_closed_hides_no_other_model(
    make_package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_package("home/closed")
    make_package("home/open")
    monkeypatch.setenv("RUBERT_LITE_HOME", str(tmp_path / "home"))
    plain = Path.is_file

    def is_file(path: Path) -> bool:
        if "closed" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    assert locate("open") == tmp_path / "home" / "open"
    assert "closed" not in available_models()

    def iterdir(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert available_models() == {}


def test_without_standard_error(
    shared_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", None)
    with Progress("encode", 1, shown=True) as bar:
        bar.add(1)
    path = tmp_path / "texts.txt"
    path.write_text("мир\n", "utf-8")
    script = (
        f"{sys.executable} -m rubert_lite.cli encode {shared_package} {path}"
        f" --output {tmp_path / 'out.npy'} 2>&-"
    )
    assert subprocess.run(["bash", "-c", script], check=False).returncode == 0
    assert (tmp_path / "out.npy").is_file()


class Table:
    """Like a data frame: its length counts rows, iterating gives the names of its columns."""

    ndim = 2

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[str]:
        return iter(["text"])


class Liar(Table):
    ndim = 1


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (Table(), "a Table of 2 dimensions, expected a list of strings, such as one column"),
        (np.array([["а"], ["б"]]), "a ndarray of 2 dimensions"),
        (np.array("а"), "a ndarray of 0 dimensions"),
        ({"text": ["а", "б"]}, "a dict, expected a list of strings"),
        (Liar(), "1 came, but their collection says 3"),
    ],
)
def test_what_is_no_flat_list_is_refused(model: Model, texts: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        model.encode(texts)
    assert model.encode(np.array(["а", "б"])).shape == (2, 8)  # type: ignore[arg-type]


def test_more_texts_than_their_collection_says_are_refused(model: Model) -> None:
    class Growing(Liar):
        def __iter__(self) -> Iterator[str]:
            return iter("а" * 5000)

    with pytest.raises(InputError, match="5000 came, but their collection says 3"):
        model.encode(Growing())  # type: ignore[arg-type]
