import numpy as np
import pytest

from rubert_lite.errors import InputError
from train.encoders import open_encoder
from train.vectors import Targets, VectorCache, hashes

TEXTS = [f"text {i}" for i in range(50)]


def encode(texts):
    """A vector that says which text it is of."""
    return np.asarray([[float(t.split()[1]), 1.0] for t in texts], dtype=np.float32)


def test_vectors_are_computed_once_and_found_by_their_text(tmp_path):
    asked = []

    def counting(texts):
        asked.extend(texts)
        return encode(texts)

    cache = VectorCache(tmp_path / "cache")
    assert cache.fill(iter(TEXTS[:30] + TEXTS[:5]), counting) == 30
    assert cache.fill(iter(TEXTS), counting) == 20
    assert sorted(asked) == sorted(TEXTS)
    again = VectorCache(tmp_path / "cache")
    wanted = [TEXTS[7], TEXTS[45], TEXTS[0]]
    rows = again.rows(hashes(iter(wanted)))
    assert again.vectors(rows).tolist() == [[7, 1], [45, 1], [0, 1]]
    assert again.vectors(rows).dtype == np.float16
    assert again.rows(hashes(iter(["unknown"]))).tolist() == [-1]


def test_a_part_that_a_kill_left_without_keys_is_computed_again(tmp_path):
    cache = VectorCache(tmp_path / "cache")
    cache.fill(iter(TEXTS[:10]), encode)
    np.save(tmp_path / "cache" / "00001.vectors.npy", np.zeros((3, 2), dtype=np.float16))
    again = VectorCache(tmp_path / "cache")
    assert len(again) == 10
    again.fill(iter(TEXTS[10:20]), encode)
    assert again.vectors(again.rows(hashes(iter([TEXTS[12]])))).tolist() == [[12, 1]]


def test_a_teacher_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot be loaded as a sentence encoder"):
        open_encoder(str(tmp_path / "nothing"))


def test_targets_come_from_the_teacher_that_read_the_text(tmp_path):
    caches = VectorCache(tmp_path / "first"), VectorCache(tmp_path / "second")
    caches[0].fill(iter(TEXTS[:10]), encode)
    caches[1].fill(iter(TEXTS[20:30]), encode)
    chosen = [TEXTS[3], TEXTS[25], TEXTS[9]]
    teachers = np.array([0, 1, 0], dtype=np.uint8)
    rows = [int(caches[t].rows_of(iter([x]))[0]) for t, x in zip(teachers, chosen, strict=True)]
    targets = Targets(caches, np.array(rows), teachers)
    assert targets.vectors(np.array([1, 0, 2, 1])).tolist() == [[25, 1], [3, 1], [9, 1], [25, 1]]


def test_targets_that_were_never_computed_are_refused(tmp_path):
    cache = VectorCache(tmp_path / "cache")
    cache.fill(iter(TEXTS[:3]), encode)
    with pytest.raises(InputError, match="lacks vectors of these pairs: delete their 05-vectors"):
        Targets((cache,), np.array([0, -1]), np.zeros(2, dtype=np.uint8))


def test_teachers_of_different_widths_are_refused(tmp_path):
    caches = VectorCache(tmp_path / "first"), VectorCache(tmp_path / "second")
    caches[0].fill(iter(TEXTS[:3]), encode)
    caches[1].fill(iter(TEXTS[:3]), lambda texts: np.ones((len(texts), 5), dtype=np.float32))
    with pytest.raises(InputError, match=r"differ in width: \[2, 5\]"):
        Targets(caches, np.array([0, 1]), np.array([0, 1], dtype=np.uint8))
