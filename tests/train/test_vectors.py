import numpy as np
import pytest

from rubert_lite.errors import InputError
from train.vectors import VectorCache, hashes, open_encoder

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
