"""Who may import whom: the folders meet in directories on disk, not in Python."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("rubert_lite", "train", "export", "serve", "loadtest")
RUNTIME = {"numpy", "tokenizers"}  # beside the standard library
RUNTIME_LAZILY = RUNTIME | {"onnxruntime", "huggingface_hub", "pyarrow"}


def imports(tree: ast.AST) -> Iterator[tuple[int, int, str]]:
    """Yield line, level (0 is absolute) and module of every import, however deep."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, 0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names if node.module is None else node.names[:1]:
                yield node.lineno, node.level, node.module or alias.name


def at_import(tree: ast.Module) -> Iterator[tuple[int, int, str]]:
    """Yield the imports that run when the module is imported."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(ast.Module([node], []))
        elif isinstance(node, ast.Try | ast.With):
            yield from at_import(ast.Module(node.body, []))


def named_imports(tree: ast.AST) -> Iterator[int]:
    """Yield lines that import by a name that is made while running."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            name = called.id if isinstance(called, ast.Name) else called
            if name in ("import_module", "__import__"):
                yield node.lineno


def faults(folder: str, source: str) -> list[str]:
    """Return what a file of a folder does against the rules of the house."""
    tree = ast.parse(source)
    found = []
    for line, level, module in imports(tree):
        root = module.partition(".")[0]
        if level > 1:
            found.append(f"{line}: climbs out of {folder}")
        elif level == 1 and folder == "rubert_lite" and root in FOLDERS:
            found.append(f"{line}: imports .{module}, a folder by its installed address")
        elif level == 0 and root == folder:
            found.append(f"{line}: imports its own folder absolutely")
        elif level == 0 and root in FOLDERS and root != "rubert_lite":
            found.append(f"{line}: imports {root}")
        elif (
            level == 0
            and root == "rubert_lite"
            and module.partition(".")[2].startswith(tuple(f for f in FOLDERS if f != "rubert_lite"))
        ):
            found.append(f"{line}: imports {module}, a folder by its installed address")
        elif (
            folder == "rubert_lite"
            and level == 0
            and root not in sys.stdlib_module_names | RUNTIME_LAZILY
        ):
            found.append(f"{line}: imports {root}, not a dependency of the runtime")
    if folder == "rubert_lite":
        found += [f"{line}: imports by name" for line in named_imports(tree)]
        for line, level, module in at_import(tree):
            if level == 0 and module.partition(".")[0] in RUNTIME_LAZILY - RUNTIME:
                found.append(f"{line}: imports {module} at import, not when it is needed")
    return found


def sources() -> list[tuple[str, Path]]:
    return [(f, p) for f in FOLDERS for p in sorted((ROOT / f).rglob("*.py"))]


def test_there_is_something_to_check() -> None:
    assert {"rubert_lite", "train", "export"} <= {folder for folder, _ in sources()}


@pytest.mark.parametrize(
    ("folder", "path"), [pytest.param(f, p, id=str(p.relative_to(ROOT))) for f, p in sources()]
)
def test_file_keeps_the_rules(folder: str, path: Path) -> None:
    assert faults(folder, path.read_text("utf-8")) == []


@pytest.mark.parametrize("folder", [f for f in FOLDERS if (ROOT / f).is_dir()])
def test_folders_are_flat(folder: str) -> None:
    nested = [p for p in (ROOT / folder).rglob("*.py") if p.parent != ROOT / folder]
    assert nested == []


def test_files_stay_readable() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for _, path in sources()
        if (count := len(path.read_text("utf-8").splitlines())) > 350
    }
    assert long == {}


@pytest.mark.parametrize(
    ("folder", "source", "fault"),
    [
        ("rubert_lite", "import torch", "not a dependency"),
        ("rubert_lite", "def f():\n    from train.corpus import read", "imports train"),
        ("rubert_lite", "from rubert_lite.errors import X", "its own folder absolutely"),
        ("rubert_lite", "import onnxruntime", "at import"),
        ("rubert_lite", "try:\n    import pyarrow\nexcept ImportError: pass", "at import"),
        ("rubert_lite", "import importlib\nimportlib.import_module('tr' + 'ain')", "by name"),
        ("rubert_lite", "x = __import__('train')", "by name"),
        ("rubert_lite", "def f():\n    from .train import corpus", "installed address"),
        ("rubert_lite", "def f():\n    from . import serve", "installed address"),
        ("train", "import export.pack", "imports export"),
        ("export", "from train import corpus", "imports train"),
        ("serve", "from rubert_lite.train.corpus import read", "installed address"),
        ("train", "from train.corpus import read", "its own folder absolutely"),
        ("train", "from ..rubert_lite import errors", "climbs out"),
        ("loadtest", "from serve.app import create_app", "imports serve"),
    ],
)
def test_fault_is_found(folder: str, source: str, fault: str) -> None:
    [found] = faults(folder, source)
    assert fault in found


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("rubert_lite", "import json\nimport numpy\nfrom .errors import X"),
        ("rubert_lite", "def f():\n    import onnxruntime"),
        (
            "rubert_lite",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import onnxruntime",
        ),
        ("train", "import torch\nfrom rubert_lite.errors import X\nfrom . import corpus"),
        ("loadtest", "from rubert_lite import load"),
    ],
)
def test_what_is_allowed_is_no_fault(folder: str, source: str) -> None:
    assert faults(folder, source) == []


def test_what_is_installed_is_what_stands_in_the_checkout() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    tool = project["tool"]["setuptools"]
    rooms = {f for f in ("train", "export", "serve") if (ROOT / f / "__init__.py").exists()}
    assert set(tool["packages"]) == {"rubert_lite", *(f"rubert_lite.{r}" for r in rooms)}
    assert tool["package-dir"] == {f"rubert_lite.{r}": r for r in rooms}
    commands = project["project"]["entry-points"]["rubert_lite.commands"]
    assert commands == {r: f"rubert_lite.{r}.__main__:main" for r in rooms}


def test_nothing_in_the_checkout_hides_an_installed_folder() -> None:
    for name in ("__main__", "train", "export", "serve"):
        for path in (ROOT / "rubert_lite" / name, ROOT / "rubert_lite" / f"{name}.py"):
            assert not path.exists()


def test_version_can_be_read_without_an_import() -> None:
    tree = ast.parse((ROOT / "rubert_lite" / "__init__.py").read_text("utf-8"))
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    assert [type(value) for value in values] == [ast.Constant]
