"""Find a model by name: shipped or installed, a directory, or a hub id."""

import logging
import os
import re
from importlib.resources import files
from pathlib import Path

from .errors import InputError, ModelNotFound, PackageError
from .package import MANIFEST, ModelPackage

logger = logging.getLogger(__name__)

HOME = "RUBERT_LITE_HOME"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)


def shipped_folder() -> Path:
    """Return where the models of the wheel lie."""
    return Path(str(files(__package__))) / "models"


def installed_folder() -> Path | None:
    """Return the folder of installed models, named by $RUBERT_LITE_HOME."""
    home = os.environ.get(HOME)
    if not home:
        return None
    folder = Path(os.path.expanduser(home))
    if not folder.is_dir():
        logger.warning("%s = %s: no such directory: models there are not seen", HOME, home)
    return folder


def available_models() -> dict[str, Path]:
    """List the models that can be loaded by name: shipped ones, then installed ones."""
    found: dict[str, Path] = {}
    for folder in (shipped_folder(), installed_folder()):
        for path in _entries(folder):
            shown = path.name.isprintable() and path.name[0] not in ".-"
            if shown and _has_manifest(path):
                found.setdefault(path.name, path)
    return found


def _entries(folder: Path | None) -> list[Path]:
    try:
        return sorted(folder.iterdir()) if folder is not None and folder.is_dir() else []
    except OSError as error:
        logger.warning("%s: models there are not seen: %s", folder, error.strerror)
        return []


def _has_manifest(path: Path) -> bool:
    try:
        return (path / MANIFEST).is_file()
    except OSError:  # a folder that is closed to us
        return False


def locate(name: str | os.PathLike[str]) -> Path:
    """Return the directory of a model.

    In order: a shipped or installed model of that name, a directory, a hub id
    `owner/name[@revision]` (through huggingface_hub; HF_HUB_OFFLINE is honoured). Raises
    ModelNotFound with what was tried, InputError for what is no name.
    """
    if not isinstance(name, str | os.PathLike):
        raise InputError(f"model: {type(name).__name__}, expected a name, directory or hub id")
    text = os.fspath(name)
    named = available_models()
    if isinstance(name, str) and text in named:
        return named[text]
    try:
        path = Path(text).expanduser()
        if text and path.is_dir():  # the empty name would be the current directory
            return path
        if text and path.exists():
            raise ModelNotFound(f"{text}: a file, expected the directory of a model package")
    # A home of nobody, a name longer than file systems know, a folder that is closed to us.
    except (RuntimeError, OSError) as error:
        raise ModelNotFound(f"{text[:200]}: no such model: {error.args[-1]}") from error
    tried = ["models of that name: " + (", ".join(named) or "none is installed"), "a directory"]
    if isinstance(name, str) and _HUB_ID.fullmatch(text) and not text.startswith("."):
        return _download(text, tried)
    import difflib  # 6 ms, which no start should pay that finds its model

    near = difflib.get_close_matches(text.lower(), named, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ModelNotFound(f"{text}: no such model{hint}; tried {'; '.join(tried)}")


def _download(name: str, tried: list[str]) -> Path:
    repository, _, revision = name.partition("@")
    # Imported here: it reads its environment (HF_HUB_OFFLINE, HF_HOME) at import, and takes its
    # time.
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ModelNotFound(
            f"{name}: no such model; tried {'; '.join(tried)}; for hub ids:"
            " pip install huggingface_hub"
        ) from error
    try:
        # The manifest first: the repository may be another kind of model, of gigabytes.
        found = snapshot_download(repository, revision=revision or None, allow_patterns=[MANIFEST])
        files = ModelPackage.open(found, verify=False).manifest.files
        # Its folder is named by the commit.
        return Path(
            snapshot_download(
                repository, revision=Path(found).name, allow_patterns=[MANIFEST, *files]
            )
        )
    except PackageError:
        raise
    except Exception as error:  # the hub's own, and those of two libraries that it asks with
        raise ModelNotFound(
            f"{name}: no such model; tried {'; '.join(tried)}; the hub: {type(error).__name__}."
            " Offline, only what is in its cache can be loaded; and only packages that `rubert-lite"
            " export` wrote"
        ) from error
