"""The command `rubert-lite`: standard output is data, standard error is talk.

Exit status: 0, 1 (an error with a name: its message only), 2 (usage), 130 (Ctrl-C).
"""

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from . import __version__, load
from .bulk import encode_file
from .errors import InputError, PackageError, ProviderError, RubertLiteError, how_to_install
from .inputs import chunks
from .locate import available_models, locate
from .model import Model
from .package import Manifest, ModelPackage
from .sound import check_numbers
from .texts import read_texts
from .vectors import json_line, writer

_GROUP = "rubert_lite.commands"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if sys.stderr is None:  # closed: print would send talk to standard output, among the data
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - as long as the process
    if sys.stdout is None:
        print("rubert-lite: standard output is closed", file=sys.stderr)
        return 1
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Data, whatever the locale of the terminal. A lone surrogate becomes JSON's own \\udXXX.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        status = _run(words)
        sys.stdout.flush()
        return status
    except RubertLiteError as error:
        print(f"rubert-lite: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        _forget_output()  # whoever read it has enough
        return 0
    except OSError as error:  # such as a full disk behind a redirected output
        _forget_output()
        print(f"rubert-lite: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rubert-lite: interrupted", file=sys.stderr)
        return 130


def _forget_output() -> None:
    """Drop what could not be written: Python would complain again when it flushes at exit."""
    own = sys.__stdout__
    if own is not None and sys.stdout is own:  # a caller's replacement is left alone
        os.dup2(os.open(os.devnull, os.O_WRONLY), own.fileno())


def _run(words: list[str]) -> int:
    commands = {"models": _models, "info": _info, "verify": _verify}
    commands |= {"encode": _encode, "classify": _classify, "tag": _tag, "answer": _answer}
    # Looking for installed commands costs time: only when none of ours is asked for.
    others = {} if words and words[0] in commands else _installed_commands()
    if words and words[0] in others:
        return _run_installed(others[words[0]], words[1:])
    arguments = _parsed(_parser(sorted(others)), words)
    with _warnings_shown():  # installed commands set up a log of their own
        commands[arguments.command](arguments)
    return 0


def _parsed(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """Parse words; FILE may also follow options that come after NAME, which argparse refuses."""
    arguments, rest = parser.parse_known_args(words)
    if "file" in arguments:
        late = len(rest) == 1 and (rest[0] == "-" or not rest[0].startswith("-"))
        if arguments.file is None and late:
            arguments.file = rest.pop()
        arguments.file = arguments.file or "-"
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def _installed_commands() -> dict[str, EntryPoint]:
    return {e.name: e for e in entry_points(group=_GROUP)}


def _run_installed(command: EntryPoint, words: list[str]) -> int:
    try:
        return int(command.load()(words))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("rubert_lite"):
            raise  # our own mistake
        raise ProviderError(
            f"{command.name}: {error.name} is not installed: {how_to_install(command.name)}"
        ) from error


def _parser(others: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rubert-lite",
        description="Encode and classify Russian text with small distilled BERT students.",
        epilog=f"installed commands: {', '.join(others)}" if others else None,
    )
    parser.add_argument("--version", action="version", version=f"rubert-lite {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("models", help="list the models that can be loaded by name")
    for name, text in (
        ("info", "print the manifest of a model as JSON"),
        ("verify", "check the files of a model, and that each variant computes"),
    ):
        _model_argument(commands.add_parser(name, help=text))

    run = argparse.ArgumentParser(add_help=False)
    _model_argument(run)
    run.add_argument(
        "file", nargs="?", metavar="FILE", help="UTF-8 text; - (default) is standard input"
    )
    run.add_argument("--variant", help="graph of the package, e.g. int8, fp32")
    run.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    run.add_argument("--lanes", type=int, help="threads (default: the usable CPUs)")
    run.add_argument("--field", help="FILE is JSON lines, and the text is this field")

    encode = commands.add_parser(
        "encode", parents=[run], help="write the vectors of texts, one text a line"
    )
    encode.add_argument(
        "--output", type=Path, metavar="F.npy|.jsonl|.parquet", help="default: JSON lines, printed"
    )
    encode.add_argument(
        "--restart", action="store_true", help="forget what a killed call left for this output"
    )
    encode.add_argument("--truncate-dim", type=int, metavar="N", help="keep the first dimensions")
    encode.add_argument("--dtype", choices=["float32", "float16"], default="float32")

    classify = commands.add_parser(
        "classify", parents=[run], help="print label, score and scores of each text as JSON lines"
    )
    classify.add_argument("--pair-field", help="the second text of a pair, with --field")
    classify.add_argument("--top-k", type=int, metavar="N", help="scores of the best labels only")

    commands.add_parser(
        "tag", parents=[run], help="print the entities of each text, with places, as JSON lines"
    )
    answer = commands.add_parser(
        "answer", parents=[run], help="print the answer to each question as JSON lines"
    )
    answer.add_argument("--context-field", help="the text that has the answer, with --field")
    return parser


def _model_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="NAME", help="name, directory, or hub id owner/name")


def _models(arguments: argparse.Namespace) -> None:
    for name, path in available_models().items():
        try:
            manifest = ModelPackage.open(path, verify=False).manifest
        except PackageError as error:
            print(f"rubert-lite: {error}", file=sys.stderr)
            continue
        what = ", ".join(manifest.labels) or manifest.task
        print(name, manifest.version, f"{_megabytes(manifest):.1f} MB", what, sep="\t")


def _megabytes(manifest: Manifest) -> float:
    return sum(entry.size for entry in manifest.files.values()) / 1e6


def _info(arguments: argparse.Namespace) -> None:
    package = ModelPackage.open(locate(arguments.model), verify=False)
    print(f"rubert-lite: {package.path}", file=sys.stderr)
    text = package.manifest.to_json().decode("utf-8")
    # A foreign package must not write to the terminal what moves its cursor or turns its text.
    shown = (c if c.isprintable() or c == "\n" else _escaped(c) for c in text)
    sys.stdout.write("".join(shown))


def _escaped(character: str) -> str:
    codes = character.encode("utf-16-be")
    return "".join(f"\\u{codes[i : i + 2].hex()}" for i in range(0, len(codes), 2))


def _verify(arguments: argparse.Namespace) -> None:
    package = ModelPackage.open(locate(arguments.model))
    for variant in package.manifest.variants:
        check_numbers(load(package.path, variant=variant, lanes=1, verify=False), str(package.path))
    count, size = len(package.manifest.files), _megabytes(package.manifest)
    print(f"{package.path}: {count} files, {size:.1f} MB, as they were made")


def _encode(arguments: argparse.Namespace) -> None:
    if arguments.restart and not arguments.output:
        _parser([]).error("--restart needs --output")
    if arguments.output:
        writer(arguments.output)  # complains before the model is loaded
        _check_apart(arguments.file, arguments.output)
    model = _load(arguments)
    fields = (arguments.field,) if arguments.field else ()
    texts = read_texts(arguments.file, fields=fields)
    settings: dict[str, Any] = {"truncate_dim": arguments.truncate_dim, "dtype": arguments.dtype}
    if arguments.output:
        out = arguments.output
        rows = encode_file(model, texts, out, restart=arguments.restart, progress=True, **settings)
        by = f"{model.package.manifest.name}, {model.variant}"
        width = arguments.truncate_dim or model.dim
        print(f"rubert-lite: {out}: {rows} x {width} {arguments.dtype}, {by}", file=sys.stderr)
        return
    # A bar between the lines of data would make both unreadable.
    for array in model.iter_encode(texts, progress=not sys.stdout.isatty(), **settings):
        sys.stdout.writelines(json_line(row) for row in array)


def _check_apart(source: str, output: Path) -> None:
    """Refuse to write vectors, or what made them, over the texts."""
    try:
        texts = os.fstat(sys.stdin.fileno()) if source == "-" else os.stat(source)
    except OSError:  # standard input may be no file; a missing one is told where it is read
        return
    for written in (output, output.with_name(f"{output.name}.meta.json")):
        if written.exists() and os.path.samestat(texts, written.stat()):
            raise InputError(f"{written}: holds the texts: write the vectors to another --output")


def _classify(arguments: argparse.Namespace) -> None:
    if arguments.pair_field and not arguments.field:
        _parser([]).error("--pair-field needs --field")
    model = _load(arguments)
    model.classify([], top_k=arguments.top_k)  # complains before it waits for input
    inputs = model.package.manifest.inputs
    if inputs == "pairs" and not arguments.pair_field:
        raise InputError(f"{arguments.model} reads pairs: name them by --field and --pair-field")
    if inputs == "texts" and arguments.pair_field:
        raise InputError(f"{arguments.model} reads single texts: leave out --pair-field")
    fields = tuple(f for f in (arguments.field, arguments.pair_field) if f)
    for chunk in chunks(read_texts(arguments.file, fields=fields)):
        for prediction in model.classify(chunk, top_k=arguments.top_k):
            print(json.dumps(asdict(prediction), ensure_ascii=False))


def _tag(arguments: argparse.Namespace) -> None:
    model = _load(arguments)
    model.tag([])  # complains before it waits for input
    fields = (arguments.field,) if arguments.field else ()
    for chunk in chunks(read_texts(arguments.file, fields=fields)):
        for entities in model.tag(chunk):
            found = [asdict(e) for e in entities]
            print(json.dumps({"entities": found}, ensure_ascii=False))


def _answer(arguments: argparse.Namespace) -> None:
    fields = (arguments.field or "question", arguments.context_field or "context")
    model = _load(arguments)
    model.answer([])
    for chunk in chunks(read_texts(arguments.file, fields=fields)):
        for answer in model.answer(chunk):
            print(json.dumps(asdict(answer), ensure_ascii=False))


def _load(arguments: argparse.Namespace) -> Model:
    return load(
        arguments.model,
        variant=arguments.variant,
        device=arguments.device,
        lanes=arguments.lanes,
    )


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """Show our warnings while a command runs; logging is nobody else's business."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("rubert-lite: %(message)s"))
    logger = logging.getLogger(__package__)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


if __name__ == "__main__":
    sys.exit(main())
