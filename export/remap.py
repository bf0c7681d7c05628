"""Cut a vocabulary without training: tokenizer and embedding rows onto the kept ids."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from rubert_lite.errors import InputError
from rubert_lite.package import staged
from rubert_lite.wordpiece import check_tokenizer, prune_tokenizer

from .tensors import read_json
from .training import read_training
from .turn import AXES, LEXICAL, read_turn
from .weights import read_config, read_tensors

_ROWS = ("word_embeddings.weight", "vocab_projector.weight", "predictions.decoder.weight")
# Said of the whole checkpoint, or independent of ids. Never the vocab.txt or added_tokens.json of
# the old ids.
_COPIED = ("head.safetensors", AXES, "LICENSE", "training.json", "special_tokens_map.json")
_BIASES = ("vocab_projector.bias", "predictions.bias", "predictions.decoder.bias")


def trim(checkpoint: Path, kept: Sequence[int], out: Path, *, replace: bool = False) -> None:
    """Write a checkpoint with only the pieces `kept`; the new id of a piece is its place there.

    Vocabulary trimming (arXiv 2305.15020): a text whose pieces were all kept has the same vectors
    as before. Raises InputError for ids that are unknown, repeated, or lack a special piece.
    """
    config = read_config(checkpoint)
    spec = read_json(checkpoint / "tokenizer.json")
    check_tokenizer(spec)
    pruned = prune_tokenizer(spec, kept)
    order = np.array(kept, dtype=np.int64)
    size = config.get("vocab_size")
    tensors = {}
    for name, value in read_tensors(checkpoint).items():
        if name.endswith(_ROWS + _BIASES):
            if len(value) != size:
                raise InputError(f"{checkpoint}: {name} has {len(value)} rows, expected {size}")
            value = value[order]
        tensors[name] = np.ascontiguousarray(value)
    rows = read_turn(checkpoint, _width(tensors), len(spec["model"]["vocab"])).lexical
    old = _teacher_ids(checkpoint, len(spec["model"]["vocab"]))
    files = {
        "config.json": config
        | {"vocab_size": len(kept), "pad_token_id": pruned["model"]["vocab"]["[PAD]"]},
        "tokenizer.json": pruned,
        "vocabulary.json": {"method": "prune", "teacher_ids": [old[i] for i in kept]},
    }
    if (checkpoint / "tokenizer_config.json").is_file():
        settings = read_json(checkpoint / "tokenizer_config.json")
        settings.pop("added_tokens_decoder", None)  # old ids; tokenizer.json has the new ones
        files["tokenizer_config.json"] = settings
    with staged(out, replace=replace) as folder:
        for name in _COPIED:
            if (checkpoint / name).is_file():
                shutil.copyfile(checkpoint / name, folder / name)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        if rows is not None:
            save_file({"weight": rows[order]}, folder / LEXICAL)
        training = read_training(checkpoint)
        if training:  # what it says of size is no longer so
            training |= {"parameters": sum(v.size for v in tensors.values()), "pieces": len(kept)}
            files["training.json"] = training
        for name, data in files.items():
            text = json.dumps(data, ensure_ascii=False)
            (folder / name).write_text(text + "\n", encoding="utf-8")


def _width(tensors: Mapping[str, NDArray[Any]]) -> int:
    """Return the columns of the table of pieces."""
    return next(int(v.shape[1]) for name, v in tensors.items() if name.endswith(_ROWS[0]))


def _teacher_ids(checkpoint: Path, size: int) -> list[int]:
    """Return the teacher id of each id by vocabulary.json.

    Without one: its own id for a vocabulary that is whole, -1 (none known) for any other.
    """
    path = checkpoint / "vocabulary.json"
    if not path.is_file():
        config = read_training(checkpoint).get("config")
        made = config.get("vocabulary") if isinstance(config, dict) else None
        method = made.get("method", "full") if isinstance(made, dict) else "full"
        return list(range(size)) if method == "full" else [-1] * size
    found = read_json(path).get("teacher_ids")
    if not isinstance(found, list) or len(found) < size or any(type(i) is not int for i in found):
        raise InputError(f"{path}: teacher_ids: expected {size} ids, -1 where there is none")
    return found


def read_kept(path: Path) -> list[int]:
    """Read kept ids: a JSON list, or one id a line."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return [int(v) for v in text.split()]
        values = json.loads(text)
        if not isinstance(values, list) or any(type(v) is not int for v in values):
            raise TypeError("something else than whole numbers")
        return values
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: expected a JSON list of ids, or one id a line: {error}"
        ) from error


def write_table(checkpoint: Path, out: Path) -> None:
    """Write vocab.tsv for people: new id, teacher id (-1: none), piece.

    Pieces that share an id stand below each other. A piece holds no tab and no line break: the
    tokenizer splits there.
    """
    vocab: dict[str, int] = read_json(checkpoint / "tokenizer.json")["model"]["vocab"]
    old = _teacher_ids(checkpoint, max(vocab.values()) + 1)
    pairs = sorted((new, piece) for piece, new in vocab.items())
    rows = (f"{new}\t{old[new]}\t{piece}\n" for new, piece in pairs)
    out.write_text("id\tteacher_id\tpiece\n" + "".join(rows), encoding="utf-8")
