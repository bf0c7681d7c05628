import numpy as np
import torch

from train.cooccurrence import _count_on_gpu, count_pairs, ppmi_rows
from train.shards import Side


def side(*texts: list[int]) -> Side:
    ids = np.array([i for t in texts for i in t], dtype=np.uint16)
    starts = np.cumsum([0, *map(len, texts)])
    return Side(ids, np.zeros(len(ids), np.uint8), starts)


def test_pairs_are_weighed_by_distance_and_stay_in_their_text():
    keys, weights = count_pairs([side([1, 2, 3], [3, 1]), side([1, 2])], 10, window=2)
    assert dict(zip(keys.tolist(), weights.tolist(), strict=True)) == {
        12: 2.0, 23: 1.0, 13: 0.5, 31: 1.0
    }  # fmt: skip


def test_merging_often_changes_nothing():
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 20, 30).tolist() for _ in range(40)]
    at_once = count_pairs([side(*texts)], 20)
    one_by_one = count_pairs([side(t) for t in texts], 20)
    assert (at_once[0] == one_by_one[0]).all()
    np.testing.assert_allclose(at_once[1], one_by_one[1], rtol=1e-5)


def test_counting_all_texts_at_once_gives_the_same():
    rng = np.random.default_rng(0)
    sides = [side(*(rng.integers(0, 20, rng.integers(2, 12)) for _ in range(30))) for _ in range(4)]
    wanted, found = count_pairs(sides, 20), _count_on_gpu(sides, 20, 5)
    assert torch.equal(found[0], wanted[0])
    torch.testing.assert_close(found[1], wanted[1])


def test_pieces_of_like_use_get_like_rows():
    """0 and 1 stand before 4 or 5, 2 and 3 before 6 or 7; 8 is never seen."""
    rng = np.random.default_rng(1)
    texts = [[int(a + 2 * k), int(4 + 2 * k + b)] for k, a, b in rng.integers(0, 2, (400, 3))]
    rows = ppmi_rows(*count_pairs([side(*texts)], 9), 9, 4)
    assert rows.shape == (9, 4) and (rows[8] == 0).all()
    torch.testing.assert_close(rows[:8].std(), torch.tensor(1.0))
    unit = torch.nn.functional.normalize(rows[:8], dim=1)
    like = unit @ unit.T
    assert like[0, 1] > 0.9 and like[2, 3] > 0.9 and like[0, 2] < 0.5


def test_rows_hold_ppmi_in_both_directions():
    """With as many dimensions as pieces U S V' is the matrix itself, worked by hand here."""
    pairs = count_pairs([side([0, 1], [1, 0], [0, 2], [2, 2])], 3, window=1)
    mass = np.array([[0, 2, 1], [2, 0, 0], [1, 0, 2]], dtype=float)  # (2, 2) counts twice
    alone = mass.sum(1)
    smooth = alone**0.75 / (alone**0.75).sum()
    with np.errstate(divide="ignore"):
        expected = np.maximum(np.log(mass / (alone[:, None] * smooth)), 0)
    u, s, _ = np.linalg.svd(expected)
    rows = u * np.sqrt(s)
    rows = (rows - rows.mean(0)) / np.std(rows - rows.mean(0), ddof=1)
    found = ppmi_rows(*pairs, 3, 3).numpy()
    np.testing.assert_allclose(found @ found.T, rows @ rows.T, atol=1e-4)
