"""Tell folders from models of a hub, so that a slip in a path asks no hub for it."""

from pathlib import Path

from rubert_lite.errors import InputError


def looks_local(source: str) -> bool:
    """Whether a model's name means a folder here, not a hub id (`name` or `owner/name`).

    It does where its first part is a folder here, and where it has more parts than a hub id.
    """
    if source.startswith((".", "/", "~")):
        return True
    parts = Path(source).parts
    return len(parts) > 2 or bool(parts) and Path(parts[0]).exists()


def refuse_missing(source: str) -> None:
    """Raise InputError if a name that means a folder here has none."""
    folder = Path(source)
    if not looks_local(source) or folder.exists():
        return
    found = next(p for p in folder.parents if p.is_dir())
    inside = sorted(p.name for p in found.iterdir() if p.is_dir() and p.name[0] != ".")
    shown = ", ".join(inside[:8]) + (", ..." if len(inside) > 8 else "")
    raise InputError(f"{source}: no such folder; {found} has {shown or 'no folders'}")
