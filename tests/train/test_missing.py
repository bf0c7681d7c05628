from pathlib import Path

from train.config import LineConfig
from train.missing import missing_files


def test_what_people_bring_is_looked_for(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a1.txt").write_text("кот\n", encoding="utf-8")
    source = {"name": "mine", "files": ["a*.txt", "b*.txt", "-"], "license": "own"}
    task = {"name": "food", "train": "a1.txt", "dev": "c.jsonl", "license": "own"}
    sentence = {"teacher": "x/y", "sources": [source], "exclude": ["d.tsv"], "tasks": []}
    config = LineConfig.model_validate(
        {"run": "r", "corpus": {"sources": [source]}, "finetune": task, "sentence": sentence}
    )
    assert missing_files(config) == [
        "corpus.sources.mine.files: b*.txt",
        "sentence.sources.mine.files: b*.txt",
        "sentence.exclude: d.tsv",
        "finetune.dev: c.jsonl",
    ]
