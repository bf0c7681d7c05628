"""A tiny checkpoint to tune."""

import json
from pathlib import Path

import torch

from tests.train.conftest import wordpiece
from train.checkpoint import write_checkpoint
from train.student import Shape, build

PIECES = ("привет", "мир", "дом", "сад")


def write_tiny(folder: Path) -> Path:
    """Write a model of one layer that knows these pieces and 32 positions."""
    spec = wordpiece(*PIECES)
    source = folder / "source"
    source.mkdir()
    text = json.dumps(spec, ensure_ascii=False)
    (source / "tokenizer.json").write_text(text, encoding="utf-8")
    (source / "vocabulary.json").write_text("{}", encoding="utf-8")
    torch.manual_seed(0)
    shape = Shape(
        vocab_size=len(spec["model"]["vocab"]),
        layers=1,
        hidden_size=16,
        heads=2,
        ffn_size=32,
        max_length=32,
        dropout=0.0,
    )
    out = folder / "checkpoint"
    out.mkdir()
    write_checkpoint(out, build(shape), source, provenance={"teacher": "none"})
    return out
