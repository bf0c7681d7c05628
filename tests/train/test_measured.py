from typing import Any

import pytest
import torch

from train.batches import Batch
from train.initialise import initialise
from train.layers import Parts, layer_parts
from train.measured import measured_layers, measured_parts
from train.student import Shape, build

from .toy_student import IDS, MASK, SAME, V, logits, shaken, small

BATCH = Batch(IDS, MASK, MASK, IDS, IDS, MASK, MASK, IDS)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_measured_layers_are_those_that_are_missed(kind: Any) -> None:
    model = shaken(small(kind))
    whole = logits(model)
    wanted = small(kind, layers=2)
    initialise(wanted, model, SAME, layers=[0, 2])
    seen = logits(wanted)

    def loss() -> float:  # least without layers 1 and 3
        return float((logits(model) - seen).square().sum())

    assert measured_layers(model, 2, loss) == [0, 2]
    torch.testing.assert_close(logits(model), whole)
    assert measured_layers(model, 4, loss) == [0, 1, 2, 3]


def test_layers_that_are_all_alike_to_the_loss_go_from_the_top() -> None:
    assert measured_layers(small(), 1, lambda: 0.0) == [0]


def quiet(model: Any) -> Any:
    """Make dimensions 0 to 7, the last two heads, and units 0 to 7 of every layer say nothing."""
    inner = getattr(model, model.config.model_type)
    norms = [inner.embeddings.LayerNorm]
    with torch.no_grad():
        for part in layer_parts(model):
            norms += [part["norm1"], part["norm2"]]
            part["out"].weight[:, 8:] = 0
            part["down"].weight[:, :8] = 0
        for norm in norms:
            norm.weight[:8] = 0
    return model


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_measured_parts_are_those_that_say_something(kind: Any) -> None:
    model = quiet(shaken(small(kind, layers=2)))
    parts = measured_parts(model, [BATCH, BATCH], width=8, units=16, head_size=4)
    assert parts.dimensions.tolist() == list(range(8, 16))
    assert [h.tolist() for h in parts.heads] == [list(range(8))] * 2
    assert [u.tolist() for u in parts.units] == [list(range(8, 24))] * 2
    assert not layer_parts(model)[0]["out"]._forward_pre_hooks


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_a_student_of_measured_parts_has_the_teachers_numbers_there(kind: Any) -> None:
    teacher = quiet(shaken(small(kind, layers=2)))
    parts = measured_parts(teacher, [BATCH], width=8, units=16, head_size=4)
    student = build(Shape(2, 8, 2, 16, V, 16, kind)).eval()
    initialise(student, teacher, SAME, layers=[0, 1], cut=parts)
    for given, own in zip(layer_parts(teacher), layer_parts(student), strict=True):
        torch.testing.assert_close(own["in"][1].weight, given["in"][1].weight[:8, 8:])
        torch.testing.assert_close(own["in"][1].bias, given["in"][1].bias[:8])
        torch.testing.assert_close(own["out"].weight, given["out"].weight[8:, :8])
        torch.testing.assert_close(own["up"].weight, given["up"].weight[8:, 8:])
        torch.testing.assert_close(own["up"].bias, given["up"].bias[8:])
        torch.testing.assert_close(own["down"].weight, given["down"].weight[8:, 8:])
        torch.testing.assert_close(own["norm2"].weight, given["norm2"].weight[8:])


def test_units_that_say_nothing_are_not_missed() -> None:
    teacher = quiet(shaken(small()))
    parts = measured_parts(teacher, [BATCH], width=16, units=16, head_size=4)
    student = build(Shape(4, 16, 4, 16, V, 16)).eval()
    initialise(student, teacher, SAME, cut=parts)
    torch.testing.assert_close(logits(student), logits(teacher))
    first = Parts(parts.dimensions, parts.heads, [torch.arange(16)] * 4)
    initialise(student, teacher, SAME, cut=first)
    assert (logits(student) - logits(teacher)).abs().max() > 0.01
