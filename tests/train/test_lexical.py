"""Vectors of pieces: how they are spelled, what they learn, how they are joined to a student."""

from dataclasses import replace

import numpy as np
import pytest

from export.quantize import dequantize_blocks, quantize_blocks
from train.lexical import (
    LexicalLearning,
    Said,
    bags_of,
    joined,
    learn_rows,
    spelled,
    sums,
)

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "москва", "москвы", "##сква", "а", "##а")


@pytest.fixture
def chance():
    return np.random.default_rng(3)


def cosine(one, other):
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


def test_bags_count_pieces():
    bags = bags_of([np.array([3, 1, 3]), np.array([], int), np.array([0])], 4)
    assert bags.toarray().tolist() == [[0, 1, 0, 2], [0, 0, 0, 0], [1, 0, 0, 0]]


def test_forms_of_a_word_are_alike_and_special_pieces_are_nothing():
    rows = spelled(PIECES, np.ones(10, int), 256, seed=1)
    assert rows.shape == (10, 256) and not rows[:5].any() and rows[5:].any(1).all()
    assert cosine(rows[5], rows[6]) > 0.4 > cosine(rows[5], rows[7]) > 0.15
    assert abs(cosine(rows[5], rows[8])) < 0.25
    assert abs(cosine(rows[8], rows[9])) < 0.25  # at the beginning of a word and inside
    assert (rows == spelled(PIECES, np.ones(10, int), 256, seed=1)).all()


def test_frequent_pieces_are_short():
    counts = np.array([0] * 5 + [1_000_000, 300, 300, 10, 10])
    lengths = np.linalg.norm(spelled(PIECES, counts, 64, seed=1), axis=1)
    assert lengths[5] < lengths[6] / 100
    assert lengths[8] == pytest.approx(1, abs=0.2)


def test_sums_have_unit_length_and_empty_texts_are_zero():
    rows = np.array([[3, 4], [0, 0], [1, 0]], np.float32)
    found = sums(rows, bags_of([np.array([0]), np.array([1]), np.array([2, 2, 0])], 3))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [5 / 41**0.5, 4 / 41**0.5]], rtol=1e-6)


def test_what_is_joined_has_its_share(chance):
    vectors = np.eye(4, dtype=np.float32)[:2]
    said = Said(vectors, bags_of([np.array([5]), np.array([6])], 10))
    rows = spelled(PIECES, np.ones(10, int), 8, seed=1)
    by = np.linalg.qr(chance.normal(size=(4, 4)))[0].astype(np.float32)
    both = joined(said, rows, by, 0.3)
    np.testing.assert_allclose((both[:, :4] ** 2).sum(1), 0.7, rtol=1e-5)
    np.testing.assert_allclose((both[:, 4:] ** 2).sum(1), 0.3, rtol=1e-5)


def twins_of(chance, count=400, size=60):
    """Texts whose student says nothing of them; their twins have other pieces, number + 25."""
    texts = [chance.choice(np.arange(5, 30), 4, replace=False) for _ in range(count)]
    silent = np.ones((count, 2), np.float32) / np.sqrt(np.float32(2))
    one, other = bags_of(texts, size), bags_of([t + 25 for t in texts], size)
    return Said(silent, one), Said(silent, other)


def found_first(rows, twins):
    one, other = (sums(rows, side.bags) for side in twins)
    return float(((one @ other.T).argmax(1) == np.arange(len(one))).mean())


def test_pieces_of_twins_come_to_say_the_same(chance):
    twins = twins_of(chance)
    start = chance.normal(size=(60, 16)).astype(np.float32)
    start[:5] = 0
    learning = LexicalLearning(width=16, steps=150, batch=128, learning_rate=3e-2)
    eye = np.eye(2, dtype=np.float32)
    rows = learn_rows(start, twins, None, by=eye, learning=learning, seed=1)
    assert found_first(start, twins) < 0.1 and found_first(rows, twins) > 0.8
    assert not rows[:5].any()
    assert (rows == learn_rows(start, twins, None, by=eye, learning=learning, seed=1)).all()
    spans = learn_rows(start, None, twins, by=eye, learning=learning, seed=1)
    assert found_first(spans, twins) > 0.8


def test_in_four_bits_they_are_exported_as_they_learnt(chance):
    twins, eye = twins_of(chance), np.eye(2, dtype=np.float32)
    start = chance.normal(size=(60, 16)).astype(np.float32)
    start[:5] = 0
    learning = LexicalLearning(width=16, steps=150, learning_rate=0.03, share=0.5)
    few = replace(learning, row_bits=4)
    whole, rows = (
        learn_rows(start, twins, None, by=eye, learning=k, seed=1) for k in (learning, few)
    )
    assert not rows[:5].any() and not (rows == whole).all()
    assert found_first(rows, twins) > 0.9
    written = rows.astype(np.float16).astype(np.float32)  # as a checkpoint keeps them
    exported = dequantize_blocks(*quantize_blocks(written))
    np.testing.assert_allclose(exported, rows, atol=2e-3 * np.abs(rows).max())
    afterwards = dequantize_blocks(*quantize_blocks(whole))
    assert np.abs(afterwards - whole).max() > 0.02 * np.abs(whole).max()


def test_without_pairs_they_stay_as_they_are_spelled(chance):
    start = chance.normal(size=(60, 16)).astype(np.float32)
    eye = np.eye(2, dtype=np.float32)
    assert (
        learn_rows(start, None, None, by=eye, learning=LexicalLearning(), seed=1) == start
    ).all()


def test_shares_of_steps_choose_what_is_learnt(chance):
    """With all steps on spans nothing of the twins is learnt."""
    twins, spans = twins_of(chance), twins_of(chance)
    spans = spans[0], Said(spans[1].vectors, spans[0].bags)  # the same pieces: nothing to learn
    start = chance.normal(size=(60, 16)).astype(np.float32)
    found = {}
    for share in (0.0, 1.0):
        learning = LexicalLearning(width=16, twins=share, steps=150, batch=128, learning_rate=3e-2)
        rows = learn_rows(
            start, twins, spans, by=np.eye(2, dtype=np.float32), learning=learning, seed=1
        )
        found[share] = found_first(rows, twins)
    assert found[0.0] < 0.2 and found[1.0] > 0.8
