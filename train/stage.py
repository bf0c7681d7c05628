"""Run a stage once: what was made of the same inputs and settings is not made again.

A stage works in a hidden folder beside its own, which is renamed when it is whole. `stage.json`
says what it was made from: settings, inputs, versions. Equal means skip; different needs `--force`.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rubert_lite import __version__
from rubert_lite.errors import ConfigError

from .parallel import locked

logger = logging.getLogger(__name__)

STATE = "state"  # of a training, in its folder: what it goes on from

_EDGE = 1 << 20  # bytes of either end of a source file that its fingerprint reads


@dataclass(frozen=True)
class Stage:
    """One step of a line: a folder, what it is made from, and how."""

    folder: Path
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]  # name -> fingerprint
    resumable: bool = False  # a partial folder of equal settings is worked on, not thrown away
    # Of settings that a folder may be older than: it was made with these.
    defaults: Mapping[str, Any] = field(default_factory=dict)


def run_stage(stage: Stage, work: Callable[[Path], None], *, force: bool = False) -> bool:
    """Make the stage unless it is there; return whether it was made now.

    While another process makes it, this one waits. Raises ConfigError when the folder was made from
    something else and `force` is off.
    """
    identity = {
        "settings": json.loads(json.dumps(stage.settings)),
        "inputs": dict(stage.inputs),
        "version": __version__,
    }
    if _is_made(stage, identity, force=force):
        return False
    with locked(stage.folder):
        if _is_made(stage, identity, force=force):  # while this process waited
            return False
        _make(stage, identity, work, force=force)
    return True


def _is_made(stage: Stage, identity: Mapping[str, Any], *, force: bool) -> bool:
    folder = stage.folder
    if not folder.exists():
        return False
    note = folder / "stage.json"
    found = _read(note, stage.defaults) if note.is_file() else {}
    if all(found.get(k) == v for k, v in identity.items()):
        logger.info("%s: up to date", folder)
        return True
    if not force:
        raise ConfigError([f"{folder}: {p}" for p in _differences(found, identity)])
    return False


def _make(
    stage: Stage, identity: Mapping[str, Any], work: Callable[[Path], None], *, force: bool
) -> None:
    folder = stage.folder
    partial = folder.with_name(f".{folder.name}.partial")
    started = partial / "started.json"
    begun_with = _read(started, stage.defaults) if started.is_file() else {}
    if not (stage.resumable and begun_with == identity):
        if begun_with and any((partial / STATE).glob("*")) and not force:
            raise ConfigError([f"{partial}: {p}" for p in _differences(begun_with, identity)])
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_whole(started, json.dumps(identity).encode())
    begun = time.perf_counter()
    work(partial)
    seconds = round(time.perf_counter() - begun, 1)
    record = {**identity, "libraries": library_versions(), "seconds": seconds}
    text = json.dumps(record, ensure_ascii=False, indent=1) + "\n"
    write_whole(partial / "stage.json", text.encode())
    # Whatever kills this process from here on, either folder is whole, or the run goes on.
    former = folder.with_name(f".{folder.name}.former")
    shutil.rmtree(former, ignore_errors=True)
    if folder.exists():
        folder.rename(former)
    partial.rename(folder)
    shutil.rmtree(former, ignore_errors=True)
    shutil.rmtree(folder / STATE, ignore_errors=True)
    (folder / "started.json").unlink(missing_ok=True)
    logger.info("%s: made in %.1f s", folder, seconds)


def _read(note: Path, defaults: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(note.read_text())
    except ValueError:  # cut short by a kill
        return {}
    return found | {"settings": _complete(found.get("settings", {}), defaults)}


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)


def _complete(found: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    parts = {k: _complete(found.get(k, {}), v) for k, v in defaults.items() if isinstance(v, dict)}
    return {**defaults, **found, **parts}


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    remedy = "--force makes the stage again, or choose another run folder"
    if not found:
        return [f"exists, but is not a finished stage; {remedy}"]
    lines = []
    for part in ("settings", "inputs"):
        old, new = found.get(part, {}), wanted[part]
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                lines.append(f"{part} {key}: made with {old.get(key)!r}, now {new.get(key)!r}")
    if found.get("version") != wanted["version"]:
        lines.append(f"made by version {found.get('version')}, now {wanted['version']}")
    return [*lines, remedy]


def fingerprint_stage(folder: Path) -> str:
    """Identify what a finished stage was made from; of a run by the clock, what it made, too."""
    note = folder / "stage.json"
    if not note.is_file():
        number, _, made = folder.name.partition("-")
        name = {"04": "distil", "06": "finetune"}.get(number, made)
        raise ConfigError([f"{folder}: not made yet: run `rubert-lite train {name}` first"])
    record = json.loads(note.read_text())
    kept = {k: record[k] for k in ("settings", "inputs", "version")}
    if _by_the_clock(kept["settings"]):  # made again, it would be another one
        kept["weights"] = fingerprint_files([str(folder / "model.safetensors")])
    return sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _by_the_clock(settings: Mapping[str, Any]) -> bool:
    parts = [v for v in settings.values() if isinstance(v, Mapping)]
    return bool(settings.get("max_minutes")) or any(map(_by_the_clock, parts))


def fingerprint_files(paths: Iterable[str], *, whole: bool = False) -> str:
    """Identify files by name, size and both ends: reading 100 GB twice would be waste.

    `whole`: by all of their bytes, for labels and weights, whose middle may change alone.
    """
    found = []
    for name in paths:
        there = Path(name).stat() if Path(name).is_file() else None
        found.append((name, (there.st_size, there.st_mtime_ns) if there else None))
    return _fingerprint(tuple(found), whole)


@lru_cache(maxsize=1024)  # a comparison asks hundreds of times for the same few files
def _fingerprint(files: tuple[tuple[str, tuple[int, int] | None], ...], whole: bool) -> str:
    digest = sha256()
    for name, there in files:
        if there is None:
            digest.update(f"{name}|".encode())
            continue
        path, size = Path(name), there[0]
        digest.update(f"{path.name}|{size}|".encode())
        with path.open("rb") as file:
            digest.update(file.read(_EDGE))
            if size > _EDGE and not whole:
                file.seek(max(size - _EDGE, _EDGE))
            while data := file.read(_EDGE):
                digest.update(data)
    return digest.hexdigest()[:16]


def fields_of(values: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """Select the values that are fields of a dataclass."""
    return {f.name: values[f.name] for f in fields(kind) if f.name in values}


def library_versions() -> dict[str, str]:
    """List the versions that a result depends on."""
    found = {}
    for name in ("torch", "transformers", "tokenizers", "accelerate", "numpy", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
