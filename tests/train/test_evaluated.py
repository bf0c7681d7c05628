"""What an evaluation's configuration may ask, and what it cannot without its files."""

from pathlib import Path

import numpy as np
import pytest

from rubert_lite.errors import ConfigError
from train import systems
from train.encoders import USE
from train.evaluate import evaluate
from train.evaluated import load_evaluation
from train.systems import System, SystemConfig
from train.word_vectors import NAVEC

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

    assert missing() == missing(document_teacher="owner/y", texts=["t-*.txt", "t-1.txt"]) == ""
    assert missing(texts=["t-*.txt", "u-*.txt"]) == "u-*.txt"
    assert missing(document_teacher="./teacher") == "./teacher"
    assert missing(document_teacher="owner/y", document_beside=["./more"]) == "./more"
    monkeypatch.setattr(systems, "package_version", lambda name: "")
    assert missing(path=USE) == f"package {USE}"
    assert missing(document_beside=[NAVEC]) == f"package {NAVEC}"


def test_a_new_version_of_an_encoder_beside_is_another_system(tmp_path, monkeypatch):
    Path(tmp_path / "rotation.npy").write_bytes(b"numbers")
    found = set()
    for version in ("0.2.1", "0.2.2"):
        monkeypatch.setattr(
            systems, "package_version", lambda name, v=version: v if name == USE else ""
        )
        for settings in ({"document_beside": [USE]}, {"document_teacher": USE}, {"path": USE}):
            config = SystemConfig(**{"name": "s", "kind": "encoder", "path": "owner/x"} | settings)
            found.add(System(config).fingerprint)
    assert len(found) == 6


def test_documents_are_brought_into_the_students_space_without_its_own_encoders(
    tmp_path, monkeypatch
):
    """Those of the student's side have the last rows of the rotation."""
    said = {"first": np.array([[3.0, 4.0]]), "more": np.array([[0.0, 2.0]])}
    monkeypatch.setattr(systems, "open_encoder", lambda name: lambda texts: said[name])
    rotation = np.arange(15, dtype=np.float32).reshape(5, 3)
    np.save(tmp_path / "rotation.npy", rotation)
    settings = {"document_teacher": "first", "document_beside": ["more"], "truncate_dim": 2}
    system = System(
        SystemConfig(name="s", kind="package", rotation=str(tmp_path / "rotation.npy"), **settings)
    )
    expected = np.array([[0.6, 0.8, 0, 1]]) @ rotation[:4, :2]
    np.testing.assert_allclose(system.encode_documents(["x"]), expected, rtol=1e-6)
