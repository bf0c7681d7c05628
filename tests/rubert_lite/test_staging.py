"""A directory appears under its name when it is whole, or not at all."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rubert_lite.errors import InputError, PackageError
from rubert_lite.package import ModelPackage, seal, staged


def test_staged_appears_at_the_end_only(tmp_path: Path) -> None:
    out = tmp_path / "new" / "package"
    with staged(out) as partial:
        assert partial.parent == out.parent
        assert list(partial.iterdir()) == []
        (partial / "file").write_text("1")
        assert not out.exists()
    assert (out / "file").read_text() == "1"
    assert [p.name for p in out.parent.iterdir()] == ["package"]


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (ValueError("x"), ValueError),
        (PermissionError(errno.EACCES, "x"), PermissionError),
        (OSError(errno.ENOSPC, "No space left on device"), InputError),
    ],
    ids=["ctrl-c", "error", "permission", "full disk"],
)
@pytest.mark.parametrize("existing", [False, True])
def test_staged_leaves_nothing_on_error(
    make_package: Any, tmp_path: Path, error: BaseException, seen: type, existing: bool
) -> None:
    out = tmp_path / "out"
    if existing:
        make_package("out")
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(seen), staged(out, replace=existing) as partial:
        (partial / "half").write_text("1")
        raise error
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_staged_does_not_overwrite(make_package: Any, tmp_path: Path) -> None:
    out = make_package("out")
    with pytest.raises(InputError, match="exists already"), staged(out):
        pytest.fail("the block must not run")
    with staged(out, replace=True) as partial:
        (partial / "new").write_text("1")
    assert [p.name for p in out.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_staged_replaces_packages_only(tmp_path: Path) -> None:
    (tmp_path / "home" / "photos").mkdir(parents=True)
    with (
        pytest.raises(InputError, match="not a model package"),
        staged(tmp_path / "home", replace=True),
    ):
        pytest.fail("the block must not run")
    assert (tmp_path / "home" / "photos").is_dir()


def test_failed_swap_puts_the_old_package_back(
    make_package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = make_package("out")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(KeyboardInterrupt), staged(out, replace=True) as partial:
        (partial / "new").write_text("1")
    ModelPackage.open(out)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("replace", [False, True])
def test_what_came_meanwhile_is_kept(tmp_path: Path, replace: bool) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="exists already|not a model package"):  # noqa: SIM117
        with staged(out, replace=replace) as partial:
            (partial / "new").write_text("1")
            out.mkdir()
            (out / "thesis").write_text("years of work")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (out / "thesis").read_text() == "years of work"


def test_a_file_is_no_package_to_replace(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(InputError, match="not a model package"), staged(notes, replace=True):
        pytest.fail("the block must not run")
    assert notes.read_text() == "mine"


def test_a_manifest_that_would_not_open_is_not_written(make_package: Any) -> None:
    directory = make_package()
    manifest = ModelPackage.open(directory).manifest
    (directory / "manifest.json").unlink()
    with pytest.raises(PackageError, match="expected at most 1048576: shorten"):
        seal(directory, replace(manifest, provenance={"long": "x" * (1 << 20)}))
    assert not (directory / "manifest.json").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes nobody, who may not read")
def test_what_may_not_be_read_is_told(make_package: Any, tmp_path: Path) -> None:
    directory = make_package()
    tmp_path.chmod(0o755)
    (directory / "manifest.json").chmod(0o600)
    script = "from rubert_lite.package import ModelPackage; import sys, os; os.setuid(65534)\n"
    script += "ModelPackage.open(sys.argv[1])"
    # The folders above are root's own: it opens them before it becomes nobody
    here = {"cwd": directory, "capture_output": True, "text": True}
    found = subprocess.run([sys.executable, "-c", script, "."], **here)
    assert found.stderr.splitlines()[-1].endswith(
        "PackageError: manifest.json: cannot be read (Permission denied)"
    )
