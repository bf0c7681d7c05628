import math

import pytest
import torch

from train.bag import Bag


def test_the_loss_is_the_weighed_cross_entropy_of_the_pieces():
    counts = torch.tensor([50.0, 25.0, 25.0, 10.0])
    special = torch.tensor([False, False, False, True])
    bag = Bag(2, counts, special)
    with torch.no_grad():
        bag.decoder.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]))
        bag.decoder.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 5.0]))
        bag.scale.fill_(2.0)
    ids, mask = torch.tensor([[3, 0, 1, 0]]), torch.tensor([[True, True, True, False]])
    idf = [math.log(110 / 50), math.log(110 / 25)]
    scores = [2 * 0.6, 2 * 0.8, 2 * 1.4, 5.0]
    log_sum = math.log(sum(map(math.exp, scores)))
    expected = (idf[0] * (log_sum - scores[0]) + idf[1] * (log_sum - scores[1])) / sum(idf)
    found = bag(torch.tensor([[3.0, 4.0]]), ids, mask)  # the length of a vector does not matter
    assert float(found.detach()) == pytest.approx(expected, abs=1e-5)


def test_a_text_of_special_pieces_counts_nothing():
    bag = Bag(2, torch.tensor([5.0, 5.0]), torch.tensor([True, False]))
    found = bag(torch.ones(1, 2), torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 3).bool())
    assert float(found.detach()) == 0


def test_before_training_it_knows_the_frequencies():
    counts = torch.tensor([900.0, 99.0, 1.0])
    bag = Bag(4, counts, torch.zeros(3, dtype=torch.bool))
    shares = torch.softmax(bag.decoder.bias, 0)
    weighed = counts * torch.log(1000 / counts) + 1
    assert shares.tolist() == pytest.approx((weighed / weighed.sum()).tolist(), abs=1e-6)
