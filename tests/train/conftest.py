import json
from pathlib import Path

import pytest

from rubert_lite.wordpiece import SPECIAL_PIECES, bert_tokenizer_spec
from train.compared import CompareConfig, load_comparison
from train.tasks import Task

from .toy_comparison import COMPARISON, LINE, TEACHER
from .toy_line import write_words
from .toy_released import publish
from .toy_tasks import CONFIG, WORDS, write_jsonl

ALPHABET = "абвгдеёжзийклмнопрстуфхцчшщъыьэюяАБВДКМНПСТ0123456789.,!?-"


def wordpiece(*pieces: str) -> dict:
    """A tokenizer with the Russian alphabet in both forms, and these pieces."""
    letters = [*ALPHABET, *("##" + c for c in ALPHABET)]
    return bert_tokenizer_spec([*SPECIAL_PIECES, *letters, *pieces])


@pytest.fixture
def teacher_spec() -> dict:
    return wordpiece(
        "привет", "##вет", "при", "мир", "дом", "##ами", "##ам", "хорошая", "перевод", "##чица"
    )


@pytest.fixture
def student_spec() -> dict:
    return wordpiece(
        "при", "##вет", "мир", "дом", "пере", "хоро", "##шая", "##чи", "##ца", "перевод"
    )


@pytest.fixture
def write_tokenizer(tmp_path: Path):
    def write(name: str, spec: dict) -> Path:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def comparison(tmp_path: Path, monkeypatch) -> CompareConfig:
    """A comparison of tiny students, in a folder of its own that is the current one."""
    monkeypatch.chdir(tmp_path)
    lines = write_words(tmp_path)
    rows = [{"text": t, "label": str("суп" in t)} for t in lines[:40]]
    text = "".join(json.dumps(r) + "\n" for r in rows)
    (tmp_path / "food.jsonl").write_text(text, encoding="utf-8")
    for name, value in (("line", LINE), ("teacher", TEACHER), ("c", COMPARISON)):
        (tmp_path / f"{name}.toml").write_text(value, encoding="utf-8")
    (tmp_path / "README.md").write_text("<!-- comparison -->\n<!-- /comparison -->\n")
    return load_comparison(tmp_path / "c.toml")


@pytest.fixture
def classes(tmp_path: Path) -> Task:
    """A task of two classes that words tell apart."""
    records = [
        {"text": f"{w} номер {i}", "label": int(w in ("чай", "суп"))}
        for i in range(15)
        for w in WORDS
    ]
    return Task(
        "food", write_jsonl(tmp_path / "t.jsonl", records), str(tmp_path / "t.jsonl"), "auc"
    )


@pytest.fixture
def configured(tmp_path: Path, classes: Task) -> Path:
    """The file of an evaluation of one system."""
    (tmp_path / "texts.txt").write_text("кот ест суп\nпёс пьёт чай\n" * 8, encoding="utf-8")
    (tmp_path / "README.md").write_text("a\n<!-- results -->\nold\n<!-- /results -->\nb\n")
    path = tmp_path / "e.toml"
    text = CONFIG.format(out=tmp_path, train=classes.train, texts=tmp_path / "texts.txt")
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def released(tmp_path: Path, monkeypatch) -> Path:
    return publish(tmp_path, monkeypatch)
