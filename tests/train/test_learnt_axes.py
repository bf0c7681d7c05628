"""The map that is learnt at the end: what it begins with, what it keeps, what it brings nearer."""

import numpy as np
import pytest

from train.learnt_axes import AxesLearning, GradedVectors, learn_map, whitening


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def chance():
    return np.random.default_rng(7)


@pytest.fixture
def texts(chance):
    """Texts that have much in common: a mean, and few directions that say the most."""
    return unit(chance.normal(size=(800, 12)) * np.linspace(2, 0.2, 12) + np.eye(12)[0] * 2)


def moment(vectors):
    return vectors.T @ vectors / len(vectors)


def test_whitening_by_powers(texts):
    assert np.allclose(whitening(texts, 0.0), np.eye(12), atol=1e-5)
    assert np.allclose(moment(texts @ whitening(texts, 1.0)), np.eye(12), atol=1e-3)
    half = np.linalg.eigvalsh(moment(texts @ whitening(texts, 0.5)))
    assert np.allclose(half, np.sqrt(np.linalg.eigvalsh(moment(texts))), rtol=1e-2)


def test_an_axis_without_texts_is_not_blown_up(texts):
    empty = np.concatenate([texts[:, :11], np.zeros((800, 1), np.float32)], axis=1)
    assert np.abs(whitening(empty, 1.0)).max() < 2e3


def test_without_steps_it_is_the_whitening(texts):
    found = learn_map(texts, None, None, learning=AxesLearning(whitening=0.3, steps=0), seed=1)
    start = whitening(texts, 0.3)
    assert np.allclose(found / found[0, 0], start / start[0, 0], atol=1e-5)
    assert np.linalg.norm(found) == pytest.approx(np.sqrt(12), rel=1e-5)


def test_twins_come_nearer_and_a_weight_keeps_cosines(texts, chance):
    """Twins differ in their last four dimensions alone: these have to count for less."""
    noise = chance.normal(size=texts.shape) * ([0.0] * 8 + [0.4] * 4)
    twins = texts, unit(texts + noise)
    moved = {}
    for stay in (0.0, 1000.0):
        learning = AxesLearning(whitening=0.0, stay=stay, steps=120, learning_rate=1e-2)
        found = learn_map(texts, twins, None, learning=learning, seed=1)
        one, other = (unit(side @ found) for side in twins)
        assert (one * other).sum(1).mean() > (twins[0] * twins[1]).sum(1).mean()
        moved[stay] = np.abs(one @ one.T - texts @ texts.T).mean()
    assert moved[1000.0] < moved[0.0] / 2


def test_the_order_of_grades_is_learnt(texts, chance):
    """Likeness in the last dimension decides the grade, though it hardly shows in cosines."""
    other = unit(chance.permutation(texts) + texts)
    grades = (texts[:, -1] * other[:, -1] > 0).astype(np.float32)
    pairs = GradedVectors(texts, other, grades, np.zeros(len(texts), np.int64))

    def gap(found):
        cosines = (unit(texts @ found) * unit(other @ found)).sum(1)
        return cosines[grades == 1].mean() - cosines[grades == 0].mean()

    learning = AxesLearning(whitening=0.0, grades=1.0, stay=1.0, steps=150, learning_rate=1e-2)
    found = learn_map(texts, None, pairs, learning=learning, seed=1)
    assert gap(found) > 3 * gap(np.eye(12)) > 0


def test_the_same_seed_gives_the_same_map(texts):
    learning = AxesLearning(steps=20)
    one, same, other = (
        learn_map(texts, (texts, texts[::-1].copy()), None, learning=learning, seed=s)
        for s in (1, 1, 2)
    )
    assert (one == same).all() and (one != other).any()


def test_losses_on_prefixes_change_them(texts, chance):
    """From the same sorted dimensions, with hardly any weight of their losses and with much."""
    twins = texts, unit(texts + chance.normal(size=texts.shape) * np.tile([0.3, 0.02], 6))
    nearer = []
    for weight in (1e-9, 5.0):
        learning = AxesLearning(prefixes=weight, stay=10.0, steps=150, learning_rate=1e-2)
        found = learn_map(texts, twins, None, learning=learning, seed=1, prefixes=(4,))
        one, other = (unit((side @ found)[:, :4]) for side in twins)
        nearer.append(((one @ other.T).argmax(1) == np.arange(len(texts))).mean())
    assert nearer[1] > nearer[0] + 0.05


def test_prefixes_without_a_weight_change_nothing(texts):
    twins = texts, texts[::-1].copy()
    one, same = (
        learn_map(texts, twins, None, learning=AxesLearning(steps=20), seed=1, prefixes=prefixes)
        for prefixes in ((), (4, 8))
    )
    assert (one == same).all()
