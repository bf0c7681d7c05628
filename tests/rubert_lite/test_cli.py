"""The command: data on standard output, talk on standard error, four exit statuses."""

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rubert_lite import Model
from rubert_lite.cli import main
from rubert_lite.inputs import CHUNK
from tests.rubert_lite.conftest import build

ROOT = Path(__file__).parents[2]
TEXTS = ["Привет, мир", "", "добрый день"]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n", "utf-8")
    return path


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def give(data: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    return give


def vectors(out: str) -> Any:
    return np.array([json.loads(line)["vector"] for line in out.splitlines()], dtype=np.float32)


def test_encode_prints_a_json_line_per_text(
    shared_package: Path, lines: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["encode", str(shared_package), str(lines)]) == 0
    out, err = capsys.readouterr()
    assert np.array_equal(vectors(out), model.encode(TEXTS))  # 9 digits lose nothing
    assert err == ""


def test_encode_reads_standard_input(
    shared_package: Path,
    model: Model,
    stdin: Callable[[bytes], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    stdin("\ufeffмир\r\nдень без конца\u2028строки".encode())
    assert main(["encode", str(shared_package), "--truncate-dim", "3"]) == 0
    expected = model.encode(["мир", "день без конца\u2028строки"], truncate_dim=3)
    assert np.array_equal(vectors(capsys.readouterr().out), expected)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_encode_to_npy(shared_package: Path, tmp_path: Path, model: Model, dtype: Any) -> None:
    texts = [f"мир {'а' * (i % 60)}" for i in range(CHUNK + 3)]
    path, out = tmp_path / "many.txt", tmp_path / "v.npy"
    path.write_text("\n".join(texts), "utf-8")
    arguments = ["encode", str(shared_package), str(path), "--output", str(out), "--dtype", dtype]
    assert main(arguments) == 0
    found = np.load(out)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, model.encode(texts, dtype=dtype), atol=1e-6)
    assert {p.name for p in tmp_path.iterdir()} == {"many.txt", "v.npy", "v.npy.meta.json"}


def test_encode_to_jsonl_and_parquet(shared_package: Path, lines: Path, model: Model) -> None:
    expected = model.encode(TEXTS)
    out = lines.with_name("v.jsonl")
    assert main(["encode", str(shared_package), str(lines), "--output", str(out)]) == 0
    assert np.array_equal(vectors(out.read_text("utf-8")), expected)

    parquet = pytest.importorskip("pyarrow.parquet")
    out = lines.with_name("v.parquet")
    assert main(["encode", str(shared_package), str(lines), "--output", str(out)]) == 0
    table = parquet.read_table(out)
    assert str(table.schema.field("vector").type) == "fixed_size_list<element: float>[8]"
    assert np.array_equal(np.array(table["vector"].to_pylist(), dtype=np.float32), expected)


@pytest.mark.parametrize("suffix", ["npy", "jsonl", "parquet"])
def test_no_texts_give_an_empty_file_of_the_right_shape(
    shared_package: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"v.{suffix}"
    arguments = ["encode", str(shared_package), os.devnull, "--output", str(out)]
    assert main([*arguments, "--truncate-dim", "4"]) == 0
    if suffix == "npy":
        assert (np.load(out).shape, np.load(out).dtype) == ((0, 4), np.float32)
    elif suffix == "jsonl":
        assert out.read_bytes() == b""
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        assert parquet.read_table(out).num_rows == 0


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("v.csv", "unknown format, expected a name in .npy, .jsonl, .parquet"),
        ("absent/v.npy", "no directory"),
    ],
)
def test_impossible_output_is_told_before_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str, message: str
) -> None:
    # The model does not exist either: the output is looked at first.
    assert main(["encode", "no-model", "--output", str(tmp_path / output)]) == 1
    assert message in capsys.readouterr().err


def test_parquet_without_pyarrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["encode", "no-model", "--output", str(tmp_path / "v.parquet")]) == 1
    assert "pip install pyarrow" in capsys.readouterr().err


def test_field_of_json_lines(
    shared_package: Path,
    model: Model,
    stdin: Callable[[bytes], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    stdin('{"id": 1, "text": "мир"}\n{"text": "a\\nb\\ud800"}\n'.encode())
    assert main(["encode", str(shared_package), "--field", "text"]) == 0
    expected = model.encode(["мир", "a\nb\ud800"])
    assert np.array_equal(vectors(capsys.readouterr().out), expected)


@pytest.mark.parametrize("late", [False, True])
def test_the_file_may_follow_the_options(shared_package, tmp_path, capsys, late):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"a": "мир"}\n', encoding="utf-8")
    words = ["--field", "a", str(path)] if late else [str(path), "--field", "a"]
    assert main(["encode", str(shared_package), *words]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("words", [["x.txt", "y.txt"], ["--fild", "a"], ["x.txt", "--lines"]])
def test_words_too_many_are_refused(shared_package, capsys, words):
    with pytest.raises(SystemExit) as error:
        main(["encode", str(shared_package), *words])
    assert error.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "field", "message"),
    [
        ("мир\n".encode() + "мир".encode("cp1251"), [], "line 2: byte 0xec at 1 is not UTF-8"),
        ("мир".encode("cp1251"), [], "iconv -f cp1251 -t utf-8"),
        (b'{"text": "a"}\n{', ["--field", "text"], "line 2: not JSON"),
        (b"[1]", ["--field", "text"], "line 1: a JSON list, expected an object"),
        (b'{"a": 1}', ["--field", "text"], "line 1: no field 'text', expected a string"),
        (b'{"a": 1}', ["--field", "a"], "line 1: int in field 'a', expected a string"),
        (b"[" * 100_000, ["--field", "a"], "line 1: not JSON"),
        (b'{"a": 1' + b"0" * 5000 + b"}", ["--field", "a"], "line 1: not JSON"),
    ],
)
def test_unreadable_lines_are_named(
    shared_package: Path,
    stdin: Callable[[bytes], None],
    capsys: pytest.CaptureFixture[str],
    data: bytes,
    field: list[str],
    message: str,
) -> None:
    stdin(data)
    assert main(["encode", str(shared_package), *field]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("rubert-lite: standard input, line ")
    assert message in err
    assert "Traceback" not in err
    assert out == ""


def test_missing_input_and_model(
    shared_package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["encode", str(shared_package), str(tmp_path / "absent")]) == 1
    assert "absent: no such file: a text itself goes through standard" in capsys.readouterr().err
    assert main(["encode", str(shared_package), str(tmp_path)]) == 1
    assert "cannot be read" in capsys.readouterr().err
    assert main(["info", "no-such-model"]) == 1
    assert capsys.readouterr().err.startswith("rubert-lite: no-such-model: no such model; tried")
    assert main(["info", "distil-16K"]) == 1
    assert "distil-16K: no such model; did you mean 'distil-16k'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.jsonl", "a.jsonl: JSON lines: name the field of the text, such as --field text"),
        ("a.json", "a.json: JSON lines: name the field"),
        ("a.JSONL.gz", "a.JSONL.gz: JSON lines: name the field"),
        ("a.csv", "a.csv: a table, expected plain text, JSON lines (--field) or parquet"),
        ("a.tsv.xz", "a.tsv.xz: a table, expected plain text"),
    ],
)
def test_tables_are_not_taken_for_text(
    shared_package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, told: str
) -> None:
    path = tmp_path / name
    path.write_text('{"text": "раз"}\n', encoding="utf-8")
    assert main(["encode", str(shared_package), str(path)]) == 1
    out, err = capsys.readouterr()
    assert told in err and out == ""
    if name == "a.jsonl":
        assert main(["encode", str(shared_package), str(path), "--field", "text"]) == 0


def test_classify(
    classifier_package: Path,
    lines: Path,
    classifier: Model,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["classify", str(classifier_package), str(lines), "--top-k", "2"]) == 0
    out = capsys.readouterr().out
    found = [json.loads(line) for line in out.splitlines()]
    expected = classifier.classify(TEXTS, top_k=2)
    assert found == [{"label": p.label, "score": p.score, "scores": p.scores} for p in expected]
    assert any(label in out for label in ("добро", "зло", "ничто"))  # readable, not \u0434


def test_classify_pairs(
    classifier_package: Path,
    classifier: Model,
    stdin: Callable[[bytes], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    stdin('{"a": "мир", "b": "и день"}'.encode())
    name = str(classifier_package)
    assert main(["classify", name, "--field", "a", "--pair-field", "b"]) == 0
    [expected] = classifier.classify([("мир", "и день")])
    assert json.loads(capsys.readouterr().out)["scores"] == expected.scores
    with pytest.raises(SystemExit) as caught:
        main(["classify", name, "--pair-field", "b"])
    assert caught.value.code == 2


def test_classify_asks_for_the_fields_of_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = str(tmp_path / "not read")
    for inputs, fields, said in (
        ("pairs", [], "reads pairs: name them by --field and --pair-field"),
        ("texts", ["--field", "a", "--pair-field", "b"], "single texts: leave out --pair-field"),
    ):
        package = build(tmp_path / inputs, labels=("да", "нет"), with_types=True, inputs=inputs)
        assert main(["classify", str(package), where, *fields]) == 1
        assert said in capsys.readouterr().err


def test_classify_without_labels_does_not_wait_for_input(
    shared_package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert main(["classify", str(shared_package)]) == 1
    assert "classify needs one for classification" in capsys.readouterr().err


def test_cut_texts_are_told_on_standard_error(
    shared_package: Path, stdin: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # the second command does not tell it twice
        stdin("мир ".encode() * 100)
        assert main(["encode", str(shared_package)]) == 0
        assert capsys.readouterr().err == "rubert-lite: 1 texts were cut to 16 pieces\n"


def test_ctrl_c_is_130(
    shared_package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rubert_lite.cli.load", interrupted)
    assert main(["encode", str(shared_package)]) == 130
    assert capsys.readouterr().err == "rubert-lite: interrupted\n"


def test_byte_order_mark_is_no_part_of_json(
    shared_package: Path, stdin: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    stdin('\ufeff{"text": "мир"}'.encode())
    assert main(["encode", str(shared_package), "--field", "text"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
