import json
from pathlib import Path

import pytest

from rubert_lite.wordpiece import SPECIAL_PIECES, bert_tokenizer_spec

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
