"""What a checkpoint says of its making: training.json."""

from pathlib import Path
from typing import Any

from rubert_lite.errors import InputError

from .tensors import read_json


def read_training(checkpoint: Path) -> dict[str, Any]:
    """Read training.json, {} where there is none; InputError unless it says what a card needs."""
    path = checkpoint / "training.json"
    if not path.is_file():
        return {}
    found = read_json(path)
    kinds: dict[str, type] = {"teacher": str, "license": str, "corpora": list, "metrics": dict}
    problems = [
        f"{key} is no {kind.__name__}"
        for key, kind in kinds.items()
        if not isinstance(found.get(key, kind()), kind)
    ]
    if not problems:
        wanted = {"name": str, "license": str, "texts": int}
        for corpus in found.get("corpora", []):
            ok = isinstance(corpus, dict)
            if not ok or any(type(corpus.get(k)) is not t for k, t in wanted.items()):
                problems.append(f"corpus {corpus!r}: expected name, license and number of texts")
    if problems:
        raise InputError(f"{path}: {'; '.join(problems)}")
    return found
