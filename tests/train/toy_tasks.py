"""A task, and an evaluation of it, that an encoder of four words knows everything about."""

import json

import numpy as np

WORDS = {"кот": 0, "пёс": 1, "чай": 2, "суп": 3}


def encode(texts):
    """Count known words: a vector that separates them perfectly."""
    rows = np.zeros((len(texts), 4), dtype=np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.lower().split():
            if word in WORDS:
                row[WORDS[word]] += 1
    return rows


def write_jsonl(path, records):
    lines = (json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


CONFIG = """
out = "{out}"
[[tasks]]
name = "food"
train = "{train}"
dev = "{train}"
metric = "auc"
[[systems]]
name = "tiny"
kind = "hashed-tfidf"
texts = ["{texts}"]
width = 4
budget = 20000
[[tables]]
file = "{out}/README.md"
place = "results"
kind = "scores"
systems = ["tiny"]
"""
