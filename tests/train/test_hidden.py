import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rubert_lite.errors import InputError
from train.hidden import (
    average_layers,
    contrastive,
    hidden_cosine,
    hidden_mse,
    layer_blocks,
    student_blocks,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def test_hidden_losses() -> None:
    teacher, student = torch.tensor([[1.0, 0, 0], [0, 2, 0]]), torch.tensor([[1.0, 1], [0, 1]])
    weight = torch.tensor([[1.0, 0], [0, 1], [0, 0]])  # [Dt, Ds], as of a Linear
    assert hidden_mse(teacher, student, projector=weight).item() == 1.0  # (1 + 1) / 2, not / 3
    cosine = hidden_cosine(teacher, student, projector=weight).item()
    assert cosine == pytest.approx((1 - 1 / math.sqrt(2)) / 2)
    assert hidden_mse(teacher[:0], teacher[:0]).item() == 0.0
    assert hidden_cosine(teacher[:0], teacher[:0]).item() == 0.0


def test_contrastive_with_all_and_with_some_negatives() -> None:
    teacher, student = normal(5, 4), normal(5, 4, seed=1)
    cosines = F.cosine_similarity(teacher[:, None], student[None], dim=2)
    want = F.cross_entropy(cosines, torch.arange(5))
    for negatives in (-1, 4, 64):
        got = contrastive(teacher, student, negatives=negatives, generator=seeded())
        torch.testing.assert_close(got, want)
    lowest, highest = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    one = contrastive(teacher, student, negatives=1, generator=seeded()).item()
    assert lowest < one < highest and one < want.item()
    alone = contrastive(teacher[:1], student[:1], negatives=-1, generator=seeded()).item()
    assert alone == pytest.approx(0.0, abs=1e-9)
    assert contrastive(teacher[:0], student[:0], negatives=3, generator=seeded()).item() == 0.0


def test_contrastive_negatives_are_other_rows() -> None:
    teacher = torch.eye(6, dtype=torch.float64)  # the own row has cosine 1, any other 0
    loss = contrastive(teacher, teacher, negatives=2, generator=seeded())
    assert loss.item() == pytest.approx(math.log(1 + 2 / math.e))


def test_layer_blocks_of_the_published_strategies() -> None:
    assert layer_blocks(12, 6, "blocks") == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12]]
    assert layer_blocks(12, 3, "blocks") == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
    assert layer_blocks(12, 3, "all") == [list(range(13))]
    assert layer_blocks(12, 3, "last") == [[9], [10], [11], [12]]
    assert layer_blocks(12, 3, "skip") == [[0], [4], [8], [12]]
    assert student_blocks(3, "all") == [[0, 1, 2, 3]]
    assert student_blocks(3, "blocks") == [[1], [2], [3]]
    assert student_blocks(3, "skip") == [[0], [1], [2], [3]]


@pytest.mark.parametrize("students", range(1, 13))
def test_blocks_use_every_teacher_layer_once(students: int) -> None:
    blocks = layer_blocks(12, students, "blocks")
    assert len(blocks) == students
    assert [layer for block in blocks for layer in block] == list(range(1, 13))


def test_layer_blocks_refuses_a_deeper_student() -> None:
    with pytest.raises(InputError, match="expected 1..3"):
        layer_blocks(3, 4, "last")


def test_average_layers() -> None:
    states = [torch.full((2, 3), float(k)) for k in range(5)]
    first, second = average_layers(states, [[1, 2], [4]])
    assert first.tolist() == [[1.5] * 3] * 2
    assert second.tolist() == [[4.0] * 3] * 2
