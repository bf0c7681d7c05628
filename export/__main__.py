"""The command `rubert-lite export CHECKPOINT --to DIR`."""

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rubert_lite.errors import InputError, RubertLiteError
from rubert_lite.locate import available_models
from rubert_lite.package import MANIFEST, ModelPackage


def main(argv: Sequence[str] | None = None) -> int:
    """Export a checkpoint as a model package; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="rubert-lite export", description="Export a student checkpoint as a model package."
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        help="directory that `rubert-lite train` wrote, or a package (its directory or the name of"
        " a shipped one), whose weights come back as its graph has them",
    )
    parser.add_argument("--to", required=True, type=Path, metavar="DIR", help="the package")
    parser.add_argument("--name", default="", help="name of the model; default: that of DIR")
    parser.add_argument(
        "--variants",
        default="int8",
        help="comma-separated: int8, fp32, int8-turbo, int8-static, int4, int4-static, fp16,"
        " portable, safetensors, table (default: %(default)s)",
    )
    parser.add_argument("--texts", type=Path, help="more texts to compare on, one a line")
    parser.add_argument(
        "--notes", type=Path, help="Markdown for the model card: scores, weak spots"
    )
    parser.add_argument(
        "--languages",
        default="ru",
        help="comma-separated codes for the card, of what the model reads (default: %(default)s)",
    )
    parser.add_argument(
        "--keep", type=Path, help="first cut the vocabulary to the ids in this file"
    )
    parser.add_argument("--force", action="store_true", help="replace DIR if it exists")
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="rubert-lite export: %(message)s", stream=sys.stderr)
    try:
        print(_export(arguments), file=sys.stderr)
    except RubertLiteError as error:
        print(f"rubert-lite export: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # such as a directory that may not be written
        print(f"rubert-lite export: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rubert-lite export: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def _export(arguments: argparse.Namespace) -> str:
    from .pack import export
    from .remap import read_kept, trim

    texts = _read(arguments.texts).splitlines() if arguments.texts else []
    notes = _read(arguments.notes) if arguments.notes else ""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = _as_checkpoint(arguments.checkpoint, Path(folder) / "unpacked")
        if arguments.keep is not None:
            trimmed = Path(folder) / "trimmed"
            trim(checkpoint, read_kept(arguments.keep), trimmed)
            checkpoint = trimmed
        package = export(
            checkpoint,
            arguments.to,
            name=arguments.name,
            variants=_listed(arguments.variants),
            texts=texts,
            notes=notes,
            languages=_listed(arguments.languages),
            replace=arguments.force,
        )
    size = sum(entry.size for entry in package.manifest.files.values())
    parity = package.manifest.metrics["parity"].items()
    close = ", ".join(f"{name} mean cosine {values['mean_cosine']:.6f}" for name, values in parity)
    return f"{package.path}: {size / 1e6:.1f} MB, {close}"


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _as_checkpoint(given: Path, folder: Path) -> Path:
    """Return the checkpoint that was named; a package is unpacked into `folder`."""
    from .unpack import unpack

    if not given.exists():
        given = available_models().get(str(given), given)
    if not (given / MANIFEST).is_file():
        return given
    folder.mkdir()
    unpack(ModelPackage.open(given), folder)
    return folder


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected UTF-8 text: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
