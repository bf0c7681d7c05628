from typing import Any

import pytest
import torch
from transformers import BertModel

from rubert_lite.errors import ConfigError
from train.student import (
    Shape,
    build,
    count_parameters,
    encoder,
    encoder_states,
    output_rows,
    repeat_positions,
)
from train.transfer import mix_weights

from .toy_student import IDS, MASK, logits, shaken, small


@pytest.mark.parametrize(
    ("layers", "width", "ffn", "pieces", "millions", "card"),
    [
        (6, 768, 3072, 119547, 135.45, 135.5),
        (2, 768, 3072, 119547, 107.09, 107.1),
        (3, 264, 792, 30522, 10.39, 10.4),
        (3, 264, 792, 5000, 3.63, 3.6),
    ],
)
def test_published_parameter_counts_of_the_students(
    layers: int, width: int, ffn: int, pieces: int, millions: float, card: float
) -> None:
    with torch.device("meta"):
        count = count_parameters(build(Shape(layers, width, 12, ffn, pieces))) / 1e6
    assert count == pytest.approx(millions, abs=0.01)
    assert count == pytest.approx(card, abs=0.06)


def test_the_teachers_card_counts_encoder_and_pooler_but_no_head() -> None:
    with torch.device("meta"):
        model: Any = build(Shape(12, 768, 12, 3072, 119547, architecture="bert"))
        with_pooler = BertModel(model.config)
    assert round(count_parameters(with_pooler) / 1e6, 1) == 177.9
    assert round(count_parameters(model.bert) / 1e6, 1) == 177.3
    assert round(count_parameters(model) / 1e6, 1) == 178.0


def test_shape_tells_all_problems_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Shape(layers=-1, ffn_size=-1, dropout=1.0)
    assert len(caught.value.problems) == 3
    with pytest.raises(ConfigError, match="multiple of heads = 5"):
        Shape(hidden_size=264, heads=5)


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_head_in_parts_gives_the_models_logits(architecture: str) -> None:
    model = shaken(small(architecture))
    states = encoder_states(model, IDS, MASK)
    assert [tuple(s.shape) for s in states] == [(2, 5, 16)] * 5
    transform, weight, bias = output_rows(model)
    torch.testing.assert_close((transform(states[-1]) @ weight.T + bias)[MASK], logits(model))


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_a_static_student_has_its_embeddings_alone(architecture: str) -> None:
    model = small(architecture, layers=0)
    states = encoder_states(model, IDS, MASK)
    assert len(states) == 1
    torch.testing.assert_close(states[0], encoder(model).embeddings(IDS))


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_output_matrix_is_tied(architecture: str) -> None:
    model = small(architecture)
    assert output_rows(model)[1] is model.get_input_embeddings().weight


def test_positions_that_no_text_reached_repeat_trained_ones():
    model = build(Shape(vocab_size=20, layers=1, hidden_size=8, heads=2, ffn_size=8, max_length=20))
    rows = model.distilbert.embeddings.position_embeddings.weight.data
    before = rows.clone()
    repeat_positions(model, 8)
    assert torch.equal(rows[:8], before[:8])
    expected = [2, 3, 4, 5, 6, 7, 2, 3, 4, 5, 6, 7]
    assert torch.equal(rows[8:], before[expected])
    repeat_positions(model, 20)
    repeat_positions(model, 400)
    assert torch.equal(rows[8:], before[expected])


def test_mixed_weights_lie_between():
    student, start = shaken(small(), 1), shaken(small(), 2)
    before = {k: v.clone() for k, v in encoder(student).state_dict().items()}
    other = shaken(small(), 3)
    mix_weights(student, [(start, 0.25), (other, 0.125)])
    first, second = encoder(start).state_dict(), encoder(other).state_dict()
    for name, now in encoder(student).state_dict().items():
        if now.is_floating_point():
            parts = 0.625 * before[name] + 0.25 * first[name] + 0.125 * second[name]
            torch.testing.assert_close(now, parts)
