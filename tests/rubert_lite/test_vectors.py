"""Vectors in files that are whole or absent."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rubert_lite.errors import InputError
from rubert_lite.vectors import json_line, writer


@pytest.mark.parametrize("suffix", ["npy", "jsonl", "parquet"])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_interrupted_output_leaves_what_was_there(
    tmp_path: Path, suffix: str, error: BaseException
) -> None:
    out = tmp_path / f"v.{suffix}"
    out.write_text("before")

    def arrays() -> Iterator[Any]:
        yield np.ones((2, 3), dtype=np.float32)
        raise error

    with pytest.raises(BaseException, match="cannot be written|^$"):
        writer(out)(arrays(), out, {})
    assert out.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


def test_nine_digits_give_every_float_back() -> None:
    row = np.array([1 / 3, 1e-30, -3.4e38, 0.1, 0, 16777217], dtype=np.float32)
    assert np.array_equal(np.array(json.loads(json_line(row))["vector"], dtype=np.float32), row)


def test_a_directory_is_refused_at_once_and_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "d.npy").mkdir()
    with pytest.raises(InputError, match="a directory, expected the name of a file"):
        writer(tmp_path / "d.npy")
    link = tmp_path / "link.npy"
    link.symlink_to(tmp_path / "real.npy")
    writer(link)(iter([np.ones((2, 3), np.float32)]), link, {})
    assert link.is_symlink() and np.load(tmp_path / "real.npy").shape == (2, 3)
