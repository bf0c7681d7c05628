"""Model packages on disk: a directory is whole and as it was made, or it is refused.

`manifest.json` is written last and names every other file with its size and SHA-256; a directory
appears under its name only when it is complete.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from .errors import InputError, PackageError
from .manifest import FORMAT, MANIFEST, TOKENIZER, FileEntry, Manifest

__all__ = [
    "FORMAT",
    "MANIFEST",
    "TOKENIZER",
    "FileEntry",
    "Manifest",
    "ModelPackage",
    "seal",
    "sha256_of",
    "staged",
]

_MAX_MANIFEST = 1 << 20  # bytes


@dataclass(frozen=True)
class ModelPackage:
    """A package that was opened: where it lies and what it says of itself."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> "ModelPackage":
        """Read the manifest of a directory and, unless told otherwise, check every file it names.

        Raises PackageError for anything missing, altered or not understood.
        """
        path = Path(path)
        where = path / MANIFEST
        try:
            if not where.is_file():
                raise PackageError(
                    f"{path}: no {MANIFEST}: not a model package, or one whose writing was"
                    " interrupted"
                )
            if where.stat().st_size > _MAX_MANIFEST:
                raise PackageError(f"{where}: over {_MAX_MANIFEST} bytes, not a manifest")
            data = where.read_bytes()
        except OSError as error:
            raise PackageError(f"{where}: cannot be read ({error.strerror})") from error
        package = cls(path, Manifest.from_json(data, where=str(where)))
        if verify:
            package.verify()
        return package

    def file(self, name: str) -> Path:
        """Return the path of a file that the manifest names, a regular file of this package.

        Links are refused, but for those of the hub's cache into its own blobs.
        """
        if name not in self.manifest.files:
            raise PackageError(f"{self.path}: {name!r} is not among the package's files")
        path = self.path / name
        try:
            if not path.is_file():
                raise PackageError(f"{path}: missing: fetch or export the package again")
            root, target = self.path.resolve(), path.resolve()
        except OSError as error:
            raise PackageError(f"{path}: cannot be read ({error.strerror})") from error
        # The cache of the hub: models--owner--name/snapshots/revision/file -> ../../blobs/hash
        blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else None
        if target != root / name and (blobs is None or target.parent != blobs):
            raise PackageError(f"{path}: a link to {target}, expected a file of the package itself")
        return path

    def read(self, name: str) -> bytes:
        """Read a file and check what was read against the manifest."""
        path, entry = self.file(name), self.manifest.files[name]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise PackageError(f"{path}: cannot be read ({error.strerror})") from error
        _check(path, entry, len(data), sha256(data).hexdigest())
        return data

    def verify(self) -> None:
        """Check size and SHA-256 of every file; raise PackageError at the first that differs."""
        for name, entry in self.manifest.files.items():
            path = self.file(name)
            try:
                # Size first: a truncated file of gigabytes need not be read.
                size = path.stat().st_size
                digest = sha256_of(path) if size == entry.size else ""
            except OSError as error:
                raise PackageError(f"{path}: cannot be read ({error.strerror})") from error
            _check(path, entry, size, digest)


def _check(path: Path, entry: FileEntry, size: int, digest: str) -> None:
    if size != entry.size:
        raise PackageError(
            f"{path}: {size} bytes, expected {entry.size}: incomplete or changed;"
            " fetch or export the package again"
        )
    if digest != entry.sha256:
        raise PackageError(
            f"{path}: sha256 {digest[:12]}..., expected {entry.sha256[:12]}...: the file was"
            " changed; fetch or export the package again"
        )


def sha256_of(path: Path) -> str:
    """Hash a file without holding it in memory."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def staged(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give an empty directory beside `out` that takes its place when the block succeeds.

    On any error, Ctrl-C and a full disk included, it is removed and `out` stays as it was. Raises
    InputError when `out` exists and `replace` is off, when it is something else than a package,
    and for a full disk.
    """
    out = Path(os.path.abspath(out))  # "." has no name to put another beside
    _check_free(out, replace=replace)
    suffix = secrets.token_hex(4)
    partial = out.with_name(f".{out.name}.{suffix}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()  # with the user's umask, unlike mkdtemp's 0700
        yield partial
        _check_free(out, replace=replace)  # somebody may have written there meanwhile
        _swap(partial, out, aside=out.with_name(f".{out.name}.{suffix}.old"))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise InputError(f"{out}: the disk is full; nothing was written") from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_free(out: Path, *, replace: bool) -> None:
    if not os.path.lexists(out):
        return
    if not replace:
        raise InputError(
            f"{out}: exists already: choose another directory, or --force to replace it"
        )
    if not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).is_file()):
        raise InputError(f"{out}: not a model package, so it is not replaced: remove it yourself")


def _swap(partial: Path, out: Path, *, aside: Path) -> None:
    """Put `partial` in the place of `out`; on an error the old `out` is back."""
    if not os.path.lexists(out):
        partial.rename(out)
        return
    out.rename(aside)
    try:
        partial.rename(out)
    except BaseException:
        if not os.path.lexists(out):
            aside.rename(out)
        raise
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink()


def seal(directory: Path, manifest: Manifest) -> Manifest:
    """Fill in the files of `directory` and write its manifest; return the manifest as written.

    Raises PackageError when the result would not open, such as a tokenizer with another hash.
    """
    entries = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            raise PackageError(f"{path}: a link: copy the file itself into the package")
        if path.is_file() and name != MANIFEST:
            entries[name] = FileEntry(path.stat().st_size, sha256_of(path))
    manifest = replace(manifest, files=entries)
    data = manifest.to_json()
    if len(data) > _MAX_MANIFEST:
        raise PackageError(
            f"{directory / MANIFEST}: {len(data)} bytes, expected at most {_MAX_MANIFEST}:"
            " shorten what is recorded of the training"
        )
    Manifest.from_json(data, where=str(directory / MANIFEST))
    partial = directory / f".{MANIFEST}"
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(directory / MANIFEST)
    finally:
        partial.unlink(missing_ok=True)
    return manifest
