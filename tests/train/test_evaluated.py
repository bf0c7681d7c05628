"""What an evaluation's configuration may ask, and what it cannot without its files."""

import pytest

from rubert_lite.errors import ConfigError
from train import systems
from train.encoders import USE
from train.evaluate import evaluate
from train.evaluated import load_evaluation
from train.systems import System, SystemConfig

RETRIEVAL = """
[[retrieval]]
name = "{name}"
file = "pairs.tsv"
query = "a"
document = "b"
"""


def test_every_cell_has_a_name_of_its_own(configured):
    text = configured.read_text(encoding="utf-8")
    more = "".join(RETRIEVAL.format(name=n) for n in ("food", "speed", "asked", "twice", "twice"))
    configured.write_text(text + more, encoding="utf-8")
    with pytest.raises(ConfigError) as told:
        load_evaluation(configured)
    assert [p.split("'")[1] for p in told.value.problems] == ["food", "twice", "asked", "speed"]


def test_a_task_without_its_files_or_columns_is_told(configured):
    text = configured.read_text(encoding="utf-8")
    train = next(line for line in text.splitlines() if line.startswith("train"))
    text = text.replace(f"{train}\n", "")
    more = '[[tasks]]\nname = "likeness"\ndev = "d.jsonl"\nmetric = "spearman"\n'
    configured.write_text(text + more, encoding="utf-8")
    with pytest.raises(ConfigError) as told:
        load_evaluation(configured)
    assert told.value.problems == [
        "tasks.food: no 'train': metric 'auc' needs it",
        "tasks.likeness: no 'pair': metric 'spearman' needs it",
    ]


def test_a_system_without_its_texts_keeps_its_cells(configured, caplog):
    before = evaluate(load_evaluation(configured))
    texts = configured.parent / "texts.txt"
    texts.unlink()
    assert evaluate(load_evaluation(configured)) == before
    assert f"tiny: no {texts}: its cells stay as they are" in caplog.text
    assert "| tiny |" in (configured.parent / "README.md").read_text(encoding="utf-8")


def test_all_that_a_system_reads_may_be_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t-1.txt").write_text("кот\n")

    def missing(**settings):
        return SystemConfig(
            **{"name": "s", "kind": "encoder", "path": "owner/x"} | settings
        ).missing

    assert missing() == missing(texts=["t-*.txt", "t-1.txt"]) == ""
    assert missing(texts=["t-*.txt", "u-*.txt"]) == "u-*.txt"
    assert missing(path="./teacher") == "./teacher"
    monkeypatch.setattr(systems, "package_version", lambda name: "")
    assert missing(path=USE) == f"package {USE}"


def test_a_new_version_of_an_encoders_package_is_another_system(monkeypatch):
    found = set()
    for version in ("0.2.1", "0.2.2"):
        monkeypatch.setattr(systems, "package_version", lambda name, v=version: v)
        config = SystemConfig(name="s", kind="encoder", path=USE)
        found.add(System(config).fingerprint)
    assert len(found) == 2
