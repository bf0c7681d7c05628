"""The manifest of a model package: what manifest.json says, strictly read."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from .errors import PackageError

FORMAT = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"

# What the logits of a package are of: nothing, a text, each piece, the ends of an answer.
TASKS = ("embedding", "classification", "token-classification", "question-answering")
PIECEWISE = TASKS[2:]  # logits [batch, length, labels]
INPUTS = ("", "texts", "pairs")  # what a classifier was trained on; "": not recorded

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """What a file of a package must be."""

    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The contents of manifest.json; DESIGN of format 1."""

    name: str
    version: str
    license: str
    teacher: str
    task: Literal["embedding", "classification", "token-classification", "question-answering"]
    labels: tuple[str, ...]
    vocab_size: int
    hidden_size: int  # width of the vectors; of the states where no axes make them wider
    max_length: int  # pieces of a text, specials included
    pooling: str
    normalize: bool
    truncate_dims: tuple[int, ...]
    variants: Mapping[str, str]  # name -> file of a fast graph
    default_variant: str
    tokenizer_sha256: str
    files: Mapping[str, FileEntry] = field(default_factory=dict)  # all but the manifest
    metrics: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT
    inputs: Literal["", "texts", "pairs"] = ""  # of a classifier: it refuses the other

    def to_json(self) -> bytes:
        """Write the manifest as UTF-8 JSON, the same bytes for the same contents."""
        data = {"format": self.format, **asdict(self)}
        if not self.inputs:  # earlier versions, which do not know the key, read what lacks it
            del data["inputs"]
        try:
            text = json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False)
        except ValueError as error:  # a metric of NaN: other languages could not read the file
            raise PackageError(f"{MANIFEST}: {error}: expected finite numbers") from error
        return (text + "\n").encode("utf-8")

    @classmethod
    def from_json(cls, data: bytes, *, where: str) -> "Manifest":
        """Read a manifest; `where` names it in messages. Raises PackageError with every problem."""
        try:
            values = json.loads(data.decode("utf-8"))
            json.dumps(values, ensure_ascii=False).encode("utf-8")  # half of a character is none
        except (ValueError, RecursionError) as error:  # also bad UTF-8, and endless numbers
            raise PackageError(f"{where}: not JSON ({error}): fetch the package again") from error
        if not isinstance(values, dict):
            raise PackageError(f"{where}: a JSON {type(values).__name__}, expected an object")
        found = values.get("format")
        if type(found) is not int:
            raise PackageError(f"{where}: no format number: this is not a model package")
        if found != FORMAT:
            remedy = "pip install -U rubert-lite" if found > FORMAT else "export the model again"
            raise PackageError(f"{where}: format {found}, this version reads {FORMAT}: {remedy}")
        problems = _problems(values)
        if problems:
            raise PackageError(f"{where}: " + "; ".join(problems))
        files = {n: FileEntry(f["size"], f["sha256"]) for n, f in values["files"].items()}
        sequences = {k: tuple(values[k]) for k in ("labels", "truncate_dims")}
        return cls(**{**values, **sequences, "files": files})


_TYPES: dict[str, type] = {
    "name": str,
    "version": str,
    "license": str,
    "teacher": str,
    "task": str,
    "labels": list,
    "vocab_size": int,
    "hidden_size": int,
    "max_length": int,
    "pooling": str,
    "normalize": bool,
    "truncate_dims": list,
    "variants": dict,
    "default_variant": str,
    "tokenizer_sha256": str,
    "files": dict,
    "metrics": dict,
    "provenance": dict,
    "format": int,
}
_OPTIONAL: dict[str, type] = {"inputs": str}
assert {*_TYPES, *_OPTIONAL} == {f.name for f in fields(Manifest)}


def _problems(values: dict[str, Any]) -> list[str]:
    """List all that is wrong with a manifest of our format."""
    problems = [f"{k} is missing" for k in _TYPES if k not in values]
    known = _TYPES | _OPTIONAL
    problems += [f"unknown key {k!r}" for k in values if k not in known]
    for key, kind in known.items():
        if key in values and type(values[key]) is not kind:
            problems.append(f"{key} is a {type(values[key]).__name__}, expected {kind.__name__}")
    if problems:
        return problems
    for key in ("vocab_size", "hidden_size", "max_length"):
        if values[key] < 1:
            problems.append(f"{key} = {values[key]}, expected at least 1")
    if values["max_length"] in (1, 2):
        problems.append(f"max_length = {values['max_length']} leaves no room for a piece")
    for key in ("name", "version", "license", "teacher"):
        if not values[key].isprintable():  # they are shown on terminals
            problems.append(f"{key} {values[key]!r}, expected one line of printable characters")
    if values["task"] not in TASKS:
        problems.append(f"task {values['task']!r}, expected one of {', '.join(TASKS)}")
    if values.get("inputs", "") not in INPUTS:
        problems.append(f"inputs {values['inputs']!r}, expected one of {', '.join(INPUTS[1:])}")
    elif values.get("inputs") and values["task"] != "classification":
        problems.append(f"inputs of a package for {values['task']}: only a classifier has them")
    if values["pooling"] != "mean":
        problems.append(f"pooling {values['pooling']!r}, expected 'mean'")
    if not all(isinstance(v, str) for v in values["labels"]):
        problems.append("labels are not all strings")
    elif not all(v.isprintable() for v in values["labels"]):
        problems.append("labels are not all printable")
    elif len(set(values["labels"])) != len(values["labels"]):
        problems.append("a label stands twice")
    if values["task"] != "embedding" and not values["labels"]:
        problems.append(f"a {values['task']} package without labels")
    if values["task"] == "question-answering" and len(values["labels"]) > 2:
        problems.append("labels of a question-answering package: expected two, the ends of answers")
    sizes = values["truncate_dims"]
    if not all(type(v) is int and 1 <= v <= values["hidden_size"] for v in sizes):
        problems.append(f"truncate_dims {sizes} are not all in 1..{values['hidden_size']}")
    for name, entry in values["files"].items():
        problems += _file_problems(name, entry)
    if problems:  # what follows reads the entries
        return problems
    for variant, name in values["variants"].items():
        if not variant.isprintable():
            problems.append(f"variant {variant!r}, expected printable characters")
        if not isinstance(name, str) or name not in values["files"]:
            problems.append(f"variant {variant!r} names {name!r}, which is not among the files")
    if values["default_variant"] not in values["variants"]:
        problems.append(f"default_variant {values['default_variant']!r} is not among the variants")
    if TOKENIZER not in values["files"]:
        problems.append(f"{TOKENIZER} is not among the files")
    elif values["files"][TOKENIZER]["sha256"] != values["tokenizer_sha256"]:
        problems.append(f"tokenizer_sha256 is not the hash of {TOKENIZER} in files")
    return problems


def _file_problems(name: str, entry: Any) -> list[str]:
    problems = []
    if not _NAME.fullmatch(name) or name == MANIFEST:
        problems.append(f"file name {name!r} is not a plain relative path")
    if (
        not isinstance(entry, dict)
        or set(entry) != {"size", "sha256"}
        or type(entry["size"]) is not int
        or entry["size"] < 0
        or not isinstance(entry["sha256"], str)
        or not _HEX.fullmatch(entry["sha256"])
    ):
        problems.append(f"file {name!r}: expected its size and sha256")
    return problems
