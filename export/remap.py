"""Cut a vocabulary without training: tokenizer and embedding rows onto the kept ids."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from rubert_lite.errors import InputError
from rubert_lite.package import staged
from rubert_lite.wordpiece import check_tokenizer, prune_tokenizer

from .weights import read_config

_ROWS = ("word_embeddings.weight", "vocab_projector.weight", "predictions.decoder.weight")
_BIASES = ("vocab_projector.bias", "predictions.bias", "predictions.decoder.bias")


def trim(checkpoint: Path, kept: Sequence[int], out: Path, *, replace: bool = False) -> None:
    """Write a checkpoint with only the pieces `kept`; the new id of a piece is its place there.

    Vocabulary trimming (arXiv 2305.15020): a text whose pieces were all kept has the same vectors
    as before. Raises InputError for ids that are unknown, repeated, or lack a special piece.
    """
    config = read_config(checkpoint)
    path = checkpoint / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file: save the tokenizer as a fast one first")
    spec = json.loads(path.read_text(encoding="utf-8"))
    check_tokenizer(spec)
    pruned = prune_tokenizer(spec, kept)
    order = np.array(kept, dtype=np.int64)
    size = int(config["vocab_size"])
    tensors = {}
    for name, value in load_file(checkpoint / "model.safetensors").items():
        if name.endswith(_ROWS + _BIASES):
            if len(value) != size:
                raise InputError(f"{checkpoint}: {name} has {len(value)} rows, expected {size}")
            value = value[order]
        tensors[name] = np.ascontiguousarray(value)
    with staged(out, replace=replace) as folder:
        for extra in checkpoint.iterdir():
            if extra.is_file() and extra.suffix == ".json" and extra.name != "stage.json":
                shutil.copyfile(extra, folder / extra.name)
        if (checkpoint / "head.safetensors").is_file():
            shutil.copyfile(checkpoint / "head.safetensors", folder / "head.safetensors")
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        new_ids = pruned["model"]["vocab"]
        config |= {"vocab_size": len(kept), "pad_token_id": new_ids["[PAD]"]}
        vocabulary = {"method": "trim", "teacher_ids": [int(i) for i in kept]}
        for name, data in (
            ("config.json", config),
            ("tokenizer.json", pruned),
            ("vocabulary.json", vocabulary),
        ):
            text = json.dumps(data, ensure_ascii=False)
            (folder / name).write_text(text + "\n", encoding="utf-8")


def read_kept(path: Path) -> list[int]:
    """Read kept ids: a JSON list, or one id a line."""
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else text.split()
        return [int(v) for v in values]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: expected a JSON list of ids, or one id a line: {error}"
        ) from error


def write_table(checkpoint: Path, out: Path) -> None:
    """Write vocab.tsv for people: new id, teacher id (-1: none), piece."""
    spec = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    path = checkpoint / "vocabulary.json"
    # With a vocabulary map several pieces share an id: each has its line.
    pieces = sorted((i, piece) for piece, i in spec["model"]["vocab"].items())
    old = list(range(pieces[-1][0] + 1))
    if path.is_file():
        old = json.loads(path.read_text(encoding="utf-8"))["teacher_ids"]
    rows = (f"{new}\t{old[new]}\t{piece}\n" for new, piece in pieces)
    out.write_text("id\tteacher_id\tpiece\n" + "".join(rows), encoding="utf-8")
