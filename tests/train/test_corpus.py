import gzip
import io
import json
import lzma
import time
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from rubert_lite.errors import InputError
from train.corpus import Cleaning, Source, build_corpus
from train.corpus_text import clean_text, split_text, text_hash
from train.held_out import HeldOut
from train.reading import read_records, read_texts, read_whole

TEXTS = ["Съешь ещё этих мягких булок", "да выпей чаю", "й и Ё"]


def texts_of(folder) -> list[str]:
    lines = []
    for path in folder.glob("*.txt"):
        lines += path.read_text(encoding="utf-8").splitlines()
    return sorted(lines)


def build(tmp_path, *sources: Source, **cleaning):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    reports = build_corpus(sources, out, cleaning=Cleaning(**{"buckets": 4, **cleaning}))
    return out, reports


def packed(kind: str, data: bytes) -> bytes:
    pack = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}
    return pack[kind](data) if kind else data


@pytest.mark.parametrize("compression", ["", ".gz", ".xz", ".zst"])
@pytest.mark.parametrize("kind", [".txt", ".jsonl", ".parquet"])
def test_every_kind_of_file_gives_the_same_texts(tmp_path, kind, compression):
    buffer = io.BytesIO()
    if kind == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"body": TEXTS}), buffer)
        data = buffer.getvalue()
    elif kind == ".jsonl":
        rows = (json.dumps({"body": t}, ensure_ascii=False) for t in TEXTS)
        data = "\n".join(rows).encode()
    else:
        data = ("\ufeff" + "\r\n".join(TEXTS)).encode()
    path = tmp_path / f"corpus{kind}{compression}"
    path.write_bytes(packed(compression, data))
    assert [line.text for line in read_texts(path, field="body")] == TEXTS


def test_standard_input_is_read(monkeypatch):
    class Stdin:
        buffer = io.BytesIO("раз\nдва\n".encode())

    monkeypatch.setattr("sys.stdin", Stdin)
    assert [line.text for line in read_texts("-")] == ["раз", "два"]


def test_letters_are_composed_and_kept():
    assert clean_text("е\u0308лка  и \u0438\u0306од\u00a0") == "ёлка и йод"
    assert clean_text("\ud800x") == "\ufffdx"


def test_repeats_are_dropped_across_sources_and_splits_follow_the_hash(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(f"текст номер {i}" for i in range(400)))
    (tmp_path / "b.txt").write_text("\n".join(f"текст  номер {i} " for i in range(200, 600)))
    sources = [Source(n, (str(tmp_path / f"{n}.txt"),), "CC0") for n in "ab"]
    out, reports = build(tmp_path, *sources, valid_share=0.2)
    assert texts_of(out) == sorted(f"текст номер {i}" for i in range(600))
    assert [(r.kept, r.duplicates) for r in reports] == [(400, 0), (200, 200)]
    valid = (out / "valid.txt").read_text().splitlines()
    assert 80 < len(valid) < 160
    assert all((text_hash(t) >> 32) < 0.2 * 2**32 for t in valid)


def test_order_of_input_does_not_change_the_split(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(f"строка {i}" for i in range(300)))
    (tmp_path / "b.txt").write_text("\n".join(f"строка {i}" for i in reversed(range(300))))
    splits = []
    for name in "ab":
        (tmp_path / name).mkdir()
        out, _ = build(
            tmp_path / name, Source("s", (str(tmp_path / f"{name}.txt"),), "x"), valid_share=0.1
        )
        splits.append(sorted((out / "valid.txt").read_text().splitlines()))
    assert splits[0] == splits[1] and splits[0]


@given(st.text(max_size=300), st.integers(20, 60))
def test_cutting_loses_no_character_but_spaces(text, max_chars):
    text = clean_text(text)
    parts = split_text(text, max_chars=max_chars)
    assert "".join(parts).replace(" ", "") == text.replace(" ", "")
    assert all(0 < len(p) <= max_chars for p in parts)


def test_long_texts_are_cut_at_sentences():
    text = "Первое предложение здесь. Второе предложение тут. Третье."
    assert split_text(text, max_chars=30) == [
        "Первое предложение здесь.",
        "Второе предложение тут.",
        "Третье.",
    ]


def test_broken_lines_are_counted_with_their_places(tmp_path):
    path = tmp_path / "mixed.jsonl"
    good = [json.dumps({"text": f"хороший текст {i}"}) for i in range(95)]
    bad = ["{", "[1]", '{"text": 5}', '{"other": "x"}']
    path.write_text("\n".join([*good, *bad]))
    out, reports = build(tmp_path, Source("s", (str(path),), "x"), max_broken_share=0.05)
    assert reports[0].broken == 4 and reports[0].kept == 95
    assert f"{path}:96" in reports[0].broken_places[0]
    with pytest.raises(InputError, match="4 of 99 lines broken"):
        build(tmp_path, Source("s", (str(path),), "x"), max_broken_share=0.01)


def test_cp1251_is_told_with_its_remedy(tmp_path):
    path = tmp_path / "old.txt"
    path.write_bytes("\n".join(TEXTS * 10).encode("cp1251"))
    with pytest.raises(InputError, match="iconv -f cp1251") as error:
        build(tmp_path, Source("s", (str(path),), "x"))
    assert f"{path}:1" in str(error.value)


def test_a_binary_file_is_refused(tmp_path):
    path = tmp_path / "image.txt"
    path.write_bytes(bytes(range(256)) * 50)
    with pytest.raises(InputError, match="lines broken"):
        build(tmp_path, Source("s", (str(path),), "x"))


@pytest.mark.parametrize("content", ["", "\n \n\t\n"])
def test_an_empty_corpus_is_refused(tmp_path, content):
    path = tmp_path / "empty.txt"
    path.write_text(content)
    with pytest.raises(InputError, match="no text is left of s"):
        build(tmp_path, Source("s", (str(path),), "x"))


def test_folders_missing_files_and_patterns_are_told(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        build(tmp_path, Source("s", (str(tmp_path),), "x"))
    with pytest.raises(InputError, match="no such file"):
        build(tmp_path, Source("s", (str(tmp_path / "none.txt"),), "x"))
    with pytest.raises(InputError, match="no file matches"):
        build(tmp_path, Source("s", (str(tmp_path / "*.jsonl"),), "x"))


def test_a_truncated_archive_gives_what_was_readable(tmp_path):
    path = tmp_path / "cut.txt.gz"
    rows = "\n".join(f"строка {i} {i * 7919}" for i in range(5000)).encode()
    path.write_bytes(gzip.compress(rows)[:-2000])
    lines = list(read_texts(path))
    assert len(lines) > 1000 and lines[-1].text is None
    assert "unreadable from here on" in (lines[-1].problem or "")


def test_a_missing_parquet_column_is_told(tmp_path):
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"body": ["a"]}), path)
    with pytest.raises(InputError, match="no column 'text', the file has body"):
        list(read_texts(path))
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="not a readable parquet file"):
        list(read_texts(path))


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    peaks = []
    for size in (1, 4):
        path = tmp_path / f"{size}.txt"
        with path.open("w") as file:
            for i in range(size * 10_000):
                file.write(f"строка {i} " + "слово " * 20 + "\n")
        (tmp_path / f"{size}").mkdir()
        tracemalloc.start()
        build(tmp_path / f"{size}", Source("s", (str(path),), "x"), buckets=8 * size)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_labelled_records_must_be_whole(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n\n{"b"\n')
    with pytest.raises(InputError, match="x.jsonl:3: not JSON"):
        list(read_records(path))


def test_held_out_texts_stay_out(tmp_path):
    lines = [
        "первый текст",
        "второй  текст",
        "третий",
        "четвёртый",
        "Анна живёт, как все, в Москве.",
        "Из старого замка вышел рыцарь.",
        "Начало. Это предложение о Москве длиннее сорока знаков. Конец.",
        "Короткое. Тоже здесь.",
    ]
    (tmp_path / "a.txt").write_text("\n".join(lines) + "\n")
    records = [
        {"text1": "второй текст", "label": 1, "other": "третий"},
        {
            "tokens": ["Анна", "живёт", ",", "как", "все", ",", "в", "Москве", "."],
            "tags": ["O"] * 9,
        },
        {"sentence1": "Из старого <b>замка</b> вышел рыцарь."},
        {"parts": [{"text": "Это предложение о Москве длиннее сорока знаков. Короткое."}]},
    ]
    text = "\n".join(json.dumps(r) for r in records)
    (tmp_path / "dev.jsonl").write_text(text + "\n")
    (tmp_path / "more.txt").write_text("ЧЕТВЁРТЫЙ\n")
    out = tmp_path / "out"
    out.mkdir()
    held_out = [str(tmp_path / name) for name in ("dev.jsonl", "more.txt")]
    sources = [Source("a", (str(tmp_path / "a.txt"),), "CC0")]
    (report,) = build_corpus(sources, out, cleaning=Cleaning(buckets=2), exclude=held_out)
    # The last one shares only a sentence that is too short to be anyone's own.
    assert sorted(texts_of(out)) == ["Короткое. Тоже здесь.", "первый текст"]
    assert (report.kept, report.excluded, report.duplicates) == (2, 6, 0)


def test_a_held_out_file_without_texts_is_refused(tmp_path):
    path = tmp_path / "dev.jsonl"
    path.write_text('{"label": 1}\n')
    with pytest.raises(InputError, match=r"dev\.jsonl: no text in it"):
        HeldOut([str(path)])


def test_zst_that_ends_too_soon_is_told_and_frames_follow_each_other(tmp_path):
    lines = "".join(f"строка {i * i}\n" for i in range(20_000)).encode()
    whole = zstandard.compress(lines)
    path = tmp_path / "a.txt.zst"
    path.write_bytes(whole + whole)
    assert sum(1 for _ in read_texts(path)) == 40_000
    for data, said in (
        (whole[: len(whole) // 2], "end before their end mark"),
        (whole[:2000] + b"garbage" * 20 + whole[2200:], "unreadable from here on"),
    ):
        path.write_bytes(data)
        last = list(read_texts(path))[-1]
        assert last.text is None and said in last.problem


def test_a_broken_gz_is_told(tmp_path):
    lines = "".join(f"строка {i * i}\n" for i in range(20_000)).encode()
    data = bytearray(gzip.compress(lines))
    data[20_000:20_050] = bytes(50)
    path = tmp_path / "a.txt.gz"
    path.write_bytes(data)
    assert "unreadable from here on" in list(read_texts(path))[-1].problem
    with pytest.raises(InputError, match=r"a\.txt\.gz"):
        read_whole(path)


def test_cutting_takes_time_in_proportion_to_the_text():
    began = time.perf_counter()
    parts = split_text("слово " * 2_000_000, max_chars=400)
    assert time.perf_counter() - began < 20  # cut from the front, it would copy 360 GB
    assert len(parts) > 30_000 and all(0 < len(p) <= 400 for p in parts)
