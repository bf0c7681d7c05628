"""A corpus of a few words, and the tables of a configuration that trains on it in a second."""

from pathlib import Path

CORPUS = """
[corpus]
directory = "corpus"
min_chars = 1
buckets = 2
valid_share = 0.2
[[corpus.sources]]
name = "words"
files = ["words.txt"]
license = "CC0"
"""
SMALL = """
[vocabulary]
method = "train"
size = 60
min_char_count = 1
[shards]
max_length = 16
processes = 1
"""
STUDENT = """
[student]
layers = 1
hidden_size = 8
heads = 2
ffn_size = 16
max_length = 32
"""
_WORDS = ["кот", "дом", "сад", "суп", "лес", "мир", "чай", "снег"]


def write_words(folder: Path) -> list[str]:
    """Write words.txt and return its lines."""
    lines = [f"{a} и {b}, {c}." for a in _WORDS for b in _WORDS for c in _WORDS[:3]]
    (folder / "words.txt").write_text("\n".join(lines), encoding="utf-8")
    return lines
