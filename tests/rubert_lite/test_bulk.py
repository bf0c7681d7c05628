"""Files of vectors: resumed after a kill without lost or doubled rows, and labelled."""

import bz2
import gzip
import json
import lzma
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from rubert_lite import Model, bulk, load
from rubert_lite.bulk import encode_file
from rubert_lite.cli import main
from rubert_lite.errors import InputError
from rubert_lite.texts import read_texts

TEXTS = [f"добрый день {i} {'дождь ' * (i % 5)}" for i in range(5000)]


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def until(count: int) -> Iterator[str]:
    yield from TEXTS[:count]
    raise Killed


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_SAVE_ROWS", 2048)


def read(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".jsonl":
        rows = [json.loads(line)["vector"] for line in path.read_text().splitlines()]
        return np.array(rows, dtype=np.float32)
    column = parquet.read_table(path)["vector"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("suffix", ["npy", "jsonl", "parquet"])
def test_a_stopped_call_goes_on_and_gives_the_same_rows(
    model: Model, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / f"v.{suffix}"
    with pytest.raises(Killed):
        encode_file(model, until(4500), out)
    assert not out.exists() and (tmp_path / f".v.{suffix}.partial" / "state.json").exists()
    computed = []
    kept = Model.iter_encode

    def counted(self: Model, texts: Iterator[str], **settings: object) -> Iterator[np.ndarray]:
        for rows in kept(self, texts, **settings):  # type: ignore[arg-type]
            computed.append(len(rows))
            yield rows

    monkeypatch.setattr(Model, "iter_encode", counted)
    assert encode_file(model, iter(TEXTS), out) == len(TEXTS)
    assert 0 < sum(computed) < len(TEXTS)
    monkeypatch.undo()
    assert np.allclose(read(out), model.encode(TEXTS), atol=1e-7)
    assert not list(tmp_path.glob(".*"))


def test_a_killed_process_goes_on(shared_package: Path, tmp_path: Path) -> None:
    """Kill -9 after the first note, while standard input is still open."""
    out = tmp_path / "v.npy"
    script = (
        "import sys; from rubert_lite import bulk, cli; bulk._SAVE_ROWS = 2048;"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", script, "encode", str(shared_package), "-", "--output", str(out)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None and process.stderr is not None
    data = "".join(f"{t}\n" for t in TEXTS).encode()
    process.stdin.write(data[: len(data) * 98 // 100])
    process.stdin.flush()
    state = tmp_path / ".v.npy.partial" / "state.json"
    deadline = time.monotonic() + 60
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stderr.close()
    assert state.exists() and not out.exists()
    again = subprocess.run(words, input=data, capture_output=True, check=True)
    assert b"going on after" in again.stderr
    assert np.array_equal(np.load(out), load(shared_package).encode(TEXTS))


@pytest.mark.usefixtures("often")
def test_other_texts_models_and_widths_are_refused_until_restart(
    model: Model, classifier: Model, tmp_path: Path
) -> None:
    out = tmp_path / "v.npy"
    with pytest.raises(Killed):
        encode_file(model, until(4500), out)
    for texts in (["another", *TEXTS[1:]], TEXTS[:10]):
        with pytest.raises(InputError, match=r"rows are of other texts.*--restart"):
            encode_file(model, texts, out)
    with pytest.raises(InputError, match="begun with width 8, now it is 4"):
        encode_file(model, TEXTS, out, truncate_dim=4)
    with pytest.raises(InputError, match="begun with graph_sha256"):
        encode_file(classifier, TEXTS, out)
    with pytest.raises(InputError, match="begun with dtype float32, now it is float16"):
        encode_file(model, TEXTS, out, dtype="float16")
    assert encode_file(model, TEXTS[:10], out, restart=True) == 10
    assert np.array_equal(np.load(out), model.encode(TEXTS[:10]))


@pytest.mark.usefixtures("often")
def test_a_broken_note_or_a_short_file_is_told(model: Model, tmp_path: Path) -> None:
    out, folder = tmp_path / "v.npy", tmp_path / ".v.npy.partial"
    with pytest.raises(Killed):
        encode_file(model, until(4500), out)
    with (folder / "rows").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(InputError, match="100 bytes, expected at least"):
        encode_file(model, TEXTS, out)
    (folder / "state.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        encode_file(model, TEXTS, out)
    assert encode_file(model, TEXTS[:3], out, restart=True) == 3


def test_an_early_error_leaves_nothing(model: Model, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        encode_file(model, until(3), tmp_path / "v.npy")
    assert not list(tmp_path.iterdir())


def test_two_at_once_are_refused(model: Model, tmp_path: Path) -> None:
    out = tmp_path / "v.npy"

    def texts() -> Iterator[str]:
        with pytest.raises(InputError, match="another process is writing"):
            encode_file(model, TEXTS[:3], out)
        yield "мир"

    assert encode_file(model, texts(), out) == 1


@pytest.mark.parametrize("suffix", ["npy", "jsonl", "parquet"])
def test_a_file_says_which_model_made_it(model: Model, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"v.{suffix}"
    encode_file(model, ["мир"], out, truncate_dim=4, dtype="float16")
    if suffix == "parquet":
        schema = parquet.read_schema(out).metadata
        found = {k.decode().removeprefix("rubert_lite."): v.decode() for k, v in schema.items()}
    else:
        found = json.loads((tmp_path / f"v.{suffix}.meta.json").read_text())
    manifest = model.package.manifest
    assert found == {
        "model": "tiny",
        "version": "1",
        "variant": "fp32",
        "graph_sha256": manifest.files["fast.fp32.onnx"].sha256,
        "tokenizer_sha256": manifest.tokenizer_sha256,
        "width": "4",
        "dtype": "float16",
    }


def test_no_texts_give_an_empty_file(model: Model, tmp_path: Path) -> None:
    assert encode_file(model, [], tmp_path / "v.npy") == 0
    assert np.load(tmp_path / "v.npy").shape == (0, 8)


def test_parquet_and_compressed_files_are_read(tmp_path: Path) -> None:
    table = pyarrow.table({"text": TEXTS, "id": list(range(len(TEXTS)))})
    path = tmp_path / "t.parquet"
    parquet.write_table(table, path)
    assert list(read_texts(str(path))) == TEXTS
    assert next(read_texts(str(path), fields=("text", "text"))) == (TEXTS[0], TEXTS[0])
    with pytest.raises(InputError, match="no column 'body', it has text, id"):
        next(read_texts(str(path), fields=("body",)))
    with pytest.raises(InputError, match="row 1: int, expected a string"):
        next(read_texts(str(path), fields=("id",)))
    with pytest.raises(InputError, match="cannot be read as parquet"):
        next(read_texts(str(tmp_path / "absent.parquet")))
    parquet.write_table(table, tmp_path / "T.PARQUET")
    assert list(read_texts(str(tmp_path / "T.PARQUET"))) == TEXTS
    broken = pyarrow.Array.from_buffers(
        pyarrow.string(),
        1,
        [None, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0"), pyarrow.py_buffer(b"\xff")],
    )
    parquet.write_table(pyarrow.table({"text": broken}), path)
    with pytest.raises(InputError, match="cannot be read after row 0"):
        next(read_texts(str(path)))
    data = "раз\nдва\n".encode()
    for suffix, compress in (
        (".gz", gzip.compress),
        (".GZ", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
    ):
        file = tmp_path / f"t.txt{suffix}"
        file.write_bytes(compress(data))
        assert list(read_texts(str(file))) == ["раз", "два"]
        file.write_bytes(compress(data)[:-9])
        with pytest.raises(InputError, match="cannot be read"):
            list(read_texts(str(file)))


def test_restart_needs_an_output(shared_package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["encode", str(shared_package), "--restart"])
    assert "--restart needs --output" in capsys.readouterr().err


def test_what_kills_left_of_the_output_is_swept(model: Model, tmp_path: Path) -> None:
    out = tmp_path / "v.jsonl"
    left = [tmp_path / f".{name}.0123abcd.partial" for name in ("v.jsonl", "v.jsonl.meta.json")]
    others = [tmp_path / n for n in (".w.jsonl.0123abcd.partial", ".v.jsonl.mine.partial")]
    for path in (*left, *others):
        path.write_text("x")
    encode_file(model, TEXTS[:3], out)
    assert not any(path.exists() for path in left) and all(path.exists() for path in others)
    assert len(read(out)) == 3
