"""The texts of the pairs in pieces, on disk."""

import tracemalloc

import numpy as np

from train.items import _Writer


def test_memory_does_not_grow_with_the_items(tmp_path):
    count = 60_000
    tracemalloc.start()
    try:
        writer = _Writer(tmp_path, "train", np.uint16)
        for number in range(count):
            writer.add([number % 1000] * 8, number + 1000)
        writer.close()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 300_000  # bytes; an entry an item would be 480,000 for the pairs alone
    ids, starts, pairs = (
        np.load(tmp_path / f"train.{name}.npy") for name in ("ids", "starts", "pairs")
    )
    assert ids.dtype == np.uint16 and ids[-8:].tolist() == [(count - 1) % 1000] * 8
    assert starts.tolist() == list(range(0, 8 * count + 1, 8))
    assert pairs.tolist() == list(range(1000, count + 1000))
    assert len(list(tmp_path.iterdir())) == 3


def test_a_split_without_items_is_written_too(tmp_path):
    _Writer(tmp_path, "valid", np.int32).close()
    assert np.load(tmp_path / "valid.starts.npy").tolist() == [0]
    for name, dtype in (("ids", np.int32), ("pairs", np.int64)):
        found = np.load(tmp_path / f"valid.{name}.npy", mmap_mode="r" if name == "pairs" else None)
        assert len(found) == 0 and found.dtype == dtype
