"""A directory appears under its name when it is whole, or not at all."""

import errno
from pathlib import Path
from typing import Any

import pytest

from rubert_lite.errors import InputError
from rubert_lite.package import (
    ModelPackage,
    staged,
)


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
