"""What the benchmark tells, and where it puts it."""

import json
import sys
from pathlib import Path

import pytest

LOADTEST = Path(__file__).parents[2] / "loadtest"
sys.path.insert(0, str(LOADTEST))  # its files import each other by their plain names

from bench_report import publish, table, vocabularies  # noqa: E402

BASE, OURS = "transformers fp32", "rubert_lite int8-static"


def engine(megabytes, **work):
    times = {name.replace("_", " "): {"p50 ms": ms, "p99 ms": 2 * ms} for name, ms in work.items()}
    return {"cold start s": 0.25, "peak MB": 128.0, "MB": megabytes, "work": times}


@pytest.fixture
def found():
    return {
        "engines": {
            OURS: engine(7.25, one_text=0.5, many=0.25),
            BASE: engine(30.0, one_text=3.0, many=1.0),
            "floor": engine(0, one_text=0.05),
            "teacher": engine(0, one_text=60.0),
        },
        "left out": {},
    }


def test_a_cell_tells_milliseconds_and_times_the_baseline(found):
    lines = table(found, BASE)
    assert lines[0] == "| | one text | many | cold start s | peak MB | MB on disk |"
    assert lines[2] == f"| {OURS} | 0.5, p99 1.00 (6.0x) | 0.25 (4.0x) | 0.25 | 128 | 7.2 |"
    assert lines[4] == "| floor | 0.05, p99 0.10 (60.0x) |  | 0.25 | 128 |  |"
    assert "(1/20)" in lines[5]


def test_published_numbers_fill_the_documents(found, tmp_path):
    results, readme = tmp_path / "loadtest" / "results", tmp_path / "README.md"
    report = tmp_path / "loadtest" / "RESULTS.md"
    results.mkdir(parents=True)
    readme.write_text("a\n<!-- bench big -->\nstale\n<!-- /bench big -->\nb\n")
    report.write_text(readme.read_text() + "<!-- vocabularies -->\n<!-- /vocabularies -->\nc\n")
    small = {"engines": {OURS: engine(4.0, one_text=0.6)}, "left out": {}}
    publish(small, "small", BASE, tmp_path)  # has no table of its own
    publish(found, "big", BASE, tmp_path)
    # The README has what most people would look for.
    assert "\n".join(table(found, BASE, (OURS, BASE))) in readme.read_text()
    assert "floor" not in readme.read_text() and "stale" not in readme.read_text()
    text = report.read_text()
    assert "stale" not in text and "\n".join(table(found, BASE)) in text
    assert text.splitlines()[-4:-2] == [
        "| small | 4.0 | 0.6 |  |",
        "| big | 7.2 | 0.5 (6.0x) | 0.25 (4.0x) |",
    ]
    assert json.loads((results / "bench-big.json").read_text()) == found
    assert sorted(p.name for p in results.glob("*.png")) == ["bench-big.png"]


def test_vocabularies_without_ours_are_left_out(found):
    assert vocabularies({"none": {"engines": {}}}, BASE)[2:] == []
    assert len(vocabularies({"none": {"engines": {}}, "big": found}, BASE)) == 3
