"""Which files a configuration names that are not there yet: told before hours are spent."""

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .config import LineConfig

# Settings that name files that people bring
_NAMES = ("files", "exclude", "train", "dev", "unlabelled")


def missing_files(config: LineConfig) -> list[str]:
    """List them as `section.setting: path`, seen from the current folder."""
    found = _named(config.model_dump(), "")
    return [f"{place}: {path}" for place, path in found if not _exists(path)]


def _named(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            below = f"{place}.{key}".removeprefix(".")
            if key in _NAMES and isinstance(inner, str | list):
                yield from ((below, p) for p in ([inner] if isinstance(inner, str) else inner))
            else:
                yield from _named(inner, below)
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, dict):  # sources and tasks have names
                yield from _named(inner, f"{place}.{inner.get('name', '')}")


def _exists(path: str) -> bool:
    return path == "-" or bool(glob.glob(path)) or Path(path).exists()
