"""Former checkpoints with axes, and settings by which rows alone learn behind them."""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from rubert_lite.wordpiece import SPECIAL_PIECES, pieces_by_id

ROWS = [
    "sentence.former_axes=former",
    "sentence.projection=axes",
    "sentence.sort_dimensions=false",
    "sentence.only_rows=[а-н]",
    "sentence.weight_decay=0.0",
    "sentence.bag=0.0",
    "sentence.language=0.0",
    "sentence.steps=40",
    "sentence.learning_rate=0.05",
]


def former_axes():
    """Write a folder `former` with axes alone."""
    axes = np.random.default_rng(5).normal(size=(8, 8)).astype(np.float16)
    Path("former").mkdir()
    save_file({"weight": axes}, "former/axes.safetensors")
    return axes


def former_with_pieces(released):
    """Write a folder `former` with axes that join vectors of the released pieces."""
    chance = np.random.default_rng(5)
    tokenizer = json.loads((released / "tokenizer.json").read_text(encoding="utf-8"))
    pieces = pieces_by_id(tokenizer)
    rows = chance.normal(size=(len(pieces), 6)).astype(np.float32)
    rows[[pieces.index(piece) for piece in SPECIAL_PIECES]] = 0
    Path("former").mkdir()
    shutil.copyfile(released / "tokenizer.json", "former/tokenizer.json")
    axes = chance.normal(size=(8, 14)).astype(np.float16)
    save_file({"weight": axes}, "former/axes.safetensors")
    save_file({"weight": rows}, "former/lexical.safetensors")
    return axes, rows, pieces, tokenizer
