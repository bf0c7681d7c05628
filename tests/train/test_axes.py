"""Sorted dimensions: the same cosines, and what matters in the first ones."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from train import axes
from train.axes import nearest_rotation, pooled_vectors, write_axes
from train.graded import GradedPairs
from train.items import Items, principal_rotation
from train.learnt_axes import AxesLearning, GradedVectors, learn_map
from train.student import Shape, build, mean_pooled


@pytest.fixture
def student():
    torch.manual_seed(0)
    shape = {"layers": 1, "hidden_size": 16, "heads": 2, "ffn_size": 32, "max_length": 16}
    return build(Shape(vocab_size=40, dropout=0.0, **shape)).eval()


@pytest.fixture
def items():
    """600 texts, every two of a pair."""
    lengths = np.random.default_rng(1).integers(3, 9, size=600)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.random.default_rng(2).integers(5, 40, size=starts[-1]).astype(np.uint16)
    return Items(ids, starts, np.arange(600) // 2, None, pad_id=0)


def test_vectors_are_those_of_the_texts(student, items):
    rows = np.random.default_rng(3).permutation(600)[:300]
    found = pooled_vectors(student, items, rows)
    wanted = []
    with torch.no_grad():
        for i in rows:
            row = items.ids[items.starts[i] : items.starts[i + 1]].astype(np.int64)
            row = torch.tensor(row)[None]
            wanted.append(mean_pooled(student, row, torch.ones_like(row).bool())[0])
    expected = torch.nn.functional.normalize(torch.stack(wanted), dim=1).numpy()
    assert np.allclose(found, expected, atol=1e-5)


def test_axes_keep_cosines_and_sort_what_vectors_hold(student, items, tmp_path):
    alone = Items(items.ids, items.starts, np.arange(600), None, pad_id=0)  # no twins
    shares = write_axes(student, alone, alone, tmp_path, seed=1)
    weight = load_file(tmp_path / "axes.safetensors")["weight"]
    assert weight.dtype == np.float16 and weight.shape == (16, 16)
    vectors = pooled_vectors(student, alone, np.arange(600))
    turned = vectors @ weight.T.astype(np.float32)
    assert np.allclose(turned @ turned.T, vectors @ vectors.T, atol=5e-3)
    power = (turned**2).sum(0) / (turned**2).sum()
    assert (np.diff(power) < 1e-4).all()
    assert shares["held_8_after"] == pytest.approx(float(power[:8].sum()), abs=1e-4)
    assert shares["held_8_after"] > shares["held_8_before"]
    assert shares["held_4_after"] > shares["held_4_before"]


def test_what_twins_differ_in_comes_later(student, items, tmp_path, monkeypatch):
    """The first dimension holds most, and twins differ in it alone."""
    rng = np.random.default_rng(0)
    base = (rng.normal(size=(300, 16)) * [4, *np.linspace(3, 0.1, 15)]).repeat(2, axis=0)
    base[:, 0] = rng.normal(size=600) * 4
    monkeypatch.setattr(axes, "pooled_vectors", lambda _s, _t, rows: base[rows].astype("f4"))
    write_axes(student, items, items, tmp_path, seed=1)
    order = np.abs(load_file(tmp_path / "axes.safetensors")["weight"].astype(np.float32)).argmax(1)
    assert order[0] == 1 and list(order).index(0) > 4


def test_a_learnt_map_and_the_sorting_are_one(student, items, tmp_path):
    texts = [np.arange(5, 5 + n, dtype=np.int32) for n in range(3, 13)]
    grades = np.tile(np.float32([0, 1]), 5)
    graded = GradedPairs(list(zip(texts, texts[::-1], strict=True)), grades, np.zeros(10), 0)
    learning = AxesLearning(grades=0.5, steps=5)
    write_axes(student, items, items, tmp_path, seed=1, learning=learning, graded=graded)
    weight = load_file(tmp_path / "axes.safetensors")["weight"].astype(np.float32)

    vectors = pooled_vectors(student, items, np.arange(600))
    sides = [[side[i] for i in range(10)] for side in (texts, texts[::-1])]
    first, second = (_vectors(student, side) for side in sides)
    twins = vectors[0::2], vectors[1::2]
    chosen = np.random.default_rng(1).permutation(600)  # as the sample and the twins are drawn
    chance = np.random.default_rng(1)
    chance.permutation(600)
    order = chance.permutation(300)
    found = learn_map(
        vectors[chosen],
        (twins[0][order], twins[1][order]),
        GradedVectors(first, second, grades, np.zeros(10, np.int64)),
        learning=learning,
        seed=1,
    )
    expected = vectors @ found
    got = vectors @ weight.T
    assert np.allclose(got @ got.T, expected @ expected.T, atol=2e-2)
    assert not np.allclose(got @ got.T, vectors @ vectors.T, atol=5e-2)
    unit = got / np.linalg.norm(got, axis=1, keepdims=True)
    assert (unit[:, :8] ** 2).sum(1).mean() > (unit[:, 8:] ** 2).sum(1).mean()


def test_a_map_that_learns_on_prefixes_is_not_sorted_again(student, items, tmp_path):
    learning = AxesLearning(steps=0, whitening=0.0, prefixes=1.0)
    write_axes(student, items, items, tmp_path, seed=1, learning=learning, prefixes=(4,))
    learnt = load_file(tmp_path / "axes.safetensors")["weight"].astype(np.float32)
    write_axes(student, items, items, tmp_path, seed=1)  # not learnt: sorted alone
    weight = load_file(tmp_path / "axes.safetensors")["weight"].astype(np.float32)
    assert np.allclose(np.abs((learnt * weight).sum(1)), 1.0, atol=1e-2)  # each but for its sign


def _vectors(student, texts):
    starts = np.concatenate([[0], np.cumsum([len(t) for t in texts])])
    alone = Items(np.concatenate(texts), starts, np.arange(len(texts)), None, pad_id=0)
    return pooled_vectors(student, alone, np.arange(len(texts)))


class Known:
    """Items whose teacher says these vectors."""

    def __init__(self, said):
        self.said, self.targets = said, self
        self.pairs = np.arange(len(said))

    def __len__(self):
        return len(self.said)

    def vectors(self, rows):
        return self.said[rows].astype(np.float16)


def test_a_lost_rotation_is_found_again(student, items, monkeypatch):
    """By vectors that keep to it but for noise, more in some dimensions than in others."""
    chance = np.random.default_rng(4)
    targets = chance.normal(size=(2000, 12)) * np.linspace(3, 1, 12)
    rotation = np.linalg.qr(chance.normal(size=(12, 8)))[0]
    noise = chance.normal(size=(2000, 8)) * np.linspace(0.1, 0.3, 8)

    said = (targets @ rotation + noise).astype(np.float32)
    monkeypatch.setattr(axes, "pooled_vectors", lambda _, __, rows: said[rows])
    found = nearest_rotation(student, Known(targets), seed=1)
    np.testing.assert_allclose(found.T @ found, np.eye(8), atol=1e-5)
    assert np.abs(targets @ found - targets @ rotation).mean() < 0.1 * np.abs(targets).mean()


def test_evened_axes_are_turned_to_what_the_student_says(monkeypatch):
    """Orthonormal behind them: the rotation that it answers by, and the same evening."""
    chance = np.random.default_rng(6)
    targets = chance.normal(size=(5000, 8)) * np.linspace(8, 1, 8)
    evened = targets @ principal_rotation(targets, 8, whitening=0.5)
    turn = np.linalg.qr(chance.normal(size=(8, 8)))[0]
    said = (evened @ turn).astype(np.float32)
    monkeypatch.setattr(axes, "pooled_vectors", lambda _, __, rows: said[rows])
    found = nearest_rotation(None, Known(targets), seed=1, whitening=0.5)
    cosines = (targets @ found * said).sum(1) / np.linalg.norm(said, axis=1)
    np.testing.assert_allclose(cosines / np.linalg.norm(targets @ found, axis=1), 1, atol=1e-3)


def test_a_student_of_another_teacher_is_turned_inside_the_principal_axes(monkeypatch):
    """What it does not say at all, and this teacher says most loudly, is kept."""
    chance = np.random.default_rng(5)
    targets = chance.normal(size=(2000, 12)) * np.r_[5.0, np.linspace(3, 1, 11)]
    said = targets[:, 1:9].astype(np.float32)
    monkeypatch.setattr(axes, "pooled_vectors", lambda _, __, rows: said[rows])
    loud = {}
    for principal in (False, True):
        found = nearest_rotation(None, Known(targets), seed=1, principal=principal)
        loud[principal] = np.linalg.norm(found[0])
    assert loud[False] < 0.1 and loud[True] > 0.95
