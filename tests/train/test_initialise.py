from typing import Any

import pytest
import torch

from rubert_lite.errors import InputError
from train.initialise import Links, initialise, selected_layers
from train.student import (
    Shape,
    build,
    output_rows,
)

from .toy_student import SAME, V, logits, shaken, small


@pytest.mark.parametrize("cut", ["topleft", "pca"])
@pytest.mark.parametrize(
    "pair", ["bert bert", "distilbert distilbert", "bert distilbert", "distilbert bert"]
)
def test_equal_shape_and_vocabulary_reproduce_the_teacher(pair: str, cut: Any) -> None:
    kind, own = pair.split()
    teacher, student = shaken(small(kind)), small(own)
    assert (logits(student) - logits(teacher)).abs().max() > 0.1
    initialise(student, teacher, SAME, rows="fvt", layers="select", cut=cut)
    if kind == own:
        assert torch.equal(logits(student), logits(teacher))
    else:  # one token type folded into the positions: another order of the same sum
        torch.testing.assert_close(logits(student), logits(teacher), atol=2e-6, rtol=0)


TEACHER_PIECES = ["дом", "дома", "домик", "кот", "##а"]
STUDENT_PIECES = ["дом", "##а", "##ик", "кот", "ы"]
# дом -> дом, дома -> дом|##а, домик -> дом|##ик, кот -> кот, ##а -> ##а
SPLITS = [[0], [0, 1], [0, 2], [3], [1]]
# the student's pieces in teacher pieces: ##ик and ы have none here
SOURCES: list[list[int]] = [[0], [4], [], [3], []]


@pytest.mark.parametrize(
    ("rows", "sources"),
    [
        ("mean", {"дом": ["дом", "дома", "домик"], "##а": ["дома", "##а"], "##ик": ["домик"]}),
        ("fvt", {"дом": ["дом"], "##а": ["##а"], "кот": ["кот"]}),
    ],
)
def test_rows_and_bias_of_worked_pieces(rows: Any, sources: dict[str, list[str]]) -> None:
    teacher = shaken(build(Shape(2, 16, 4, 24, 5, 16)))
    student = build(Shape(2, 8, 4, 12, 5, 16))
    before = output_rows(student)[1].clone()
    initialise(student, teacher, Links(SPLITS, SOURCES), rows=rows, layers="random", cut="topleft")
    _, given, given_bias = output_rows(teacher)
    _, got, bias = output_rows(student)
    for piece, names in sources.items():
        ids = [TEACHER_PIECES.index(name) for name in names]
        new = STUDENT_PIECES.index(piece)
        torch.testing.assert_close(got[new], given[ids].mean(0)[:8])
        torch.testing.assert_close(bias[new], given_bias[ids].mean())
    assert torch.equal(got[4], before[4])  # ы stands in no split: its random row stays


def test_expected_rows_are_what_the_teacher_reads_there_on_average() -> None:
    teacher = shaken(build(Shape(2, 16, 4, 24, 5, 16)))
    student = build(Shape(2, 8, 4, 12, 5, 16))
    counts = torch.tensor([6.0, 3.0, 0.0, 0.0, 1.0])  # of TEACHER_PIECES
    sources = [*SOURCES[:4], [0, 3]]  # ы falls into дом and кот, if it could
    links = Links(SPLITS, sources, counts)
    before = output_rows(student)[1].clone()
    initialise(student, teacher, links, rows="expected", layers="random")
    _, given, given_bias = output_rows(teacher)
    _, got, bias = output_rows(student)
    torch.testing.assert_close(got[0], (6 * given[0] + 3 * given[1])[:8] / 9)
    torch.testing.assert_close(got[1], (3 * given[1] + given[4])[:8] / 4)
    torch.testing.assert_close(bias[1], (3 * given_bias[1] + given_bias[4]) / 4)
    torch.testing.assert_close(got[3], given[3, :8])  # кот stands nowhere: as fvt
    torch.testing.assert_close(got[4], (given[0] + given[3])[:8] / 2)
    assert torch.equal(got[2], before[2])  # ##ик: nothing tells


def test_fvt_takes_the_mean_of_the_teacher_pieces_of_a_new_piece() -> None:
    teacher, student = shaken(small()), small()
    initialise(student, teacher, Links([], [[3, 4]] + [[]] * (V - 1)), rows="fvt", layers="random")
    expected = output_rows(teacher)[1][[3, 4]].mean(0)
    torch.testing.assert_close(output_rows(student)[1][0].detach(), expected)


def test_topleft_cut_of_averaged_layers_positions_and_norms() -> None:
    teacher, student = shaken(small("bert", layers=4)), small(layers=2, width=8)
    initialise(student, teacher, SAME, layers="average", cut="topleft")
    deep = [layer.attention.self.query.weight for layer in teacher.bert.encoder.layer]
    for k, layer in enumerate(student.distilbert.transformer.layer):
        mean = (deep[2 * k] + deep[2 * k + 1]) / 2
        torch.testing.assert_close(layer.attention.q_lin.weight.detach(), mean[:8, :8])
    given, own = teacher.bert.embeddings, student.distilbert.embeddings
    folded = given.position_embeddings.weight + given.token_type_embeddings.weight[0]
    torch.testing.assert_close(own.position_embeddings.weight.detach(), folded[:, :8])
    torch.testing.assert_close(own.LayerNorm.weight.detach(), given.LayerNorm.weight[:8])
    torch.testing.assert_close(own.LayerNorm.bias.detach(), given.LayerNorm.bias[:8])


def test_selected_layers_are_evenly_spaced() -> None:
    assert selected_layers(12, 6) == [0, 2, 4, 7, 9, 11]  # DistilBERT's
    assert selected_layers(12, 3) == [0, 6, 11]  # 5.5 rounds to the even neighbour
    assert selected_layers(4, 4) == [0, 1, 2, 3]
    assert selected_layers(12, 1) == [0]


def test_a_student_larger_than_its_teacher_cannot_start_from_it() -> None:
    with pytest.raises(InputError, match=r"hidden_size = 16 is above the teacher's 8.*'random'"):
        initialise(small(), small(width=8), SAME)
    with pytest.raises(InputError, match=r"layers = 4 is above the teacher's 2.*'random'"):
        initialise(small(layers=4), small(layers=2), SAME)


def test_pca_keeps_more_of_the_rows_than_the_first_dimensions() -> None:
    teacher, kept = shaken(small()), {}
    rows = output_rows(teacher)[1]
    rows[:, ::2] *= 0.1  # variance in every second dimension: no cut of a side holds it
    for cut in ("topleft", "pca"):
        student = small(width=8)
        initialise(student, teacher, SAME, layers="random", cut=cut)
        kept[cut] = output_rows(student)[1].detach().square().sum()
    assert kept["pca"] > 1.5 * kept["topleft"]


def test_layers_by_number_are_those_of_the_teacher() -> None:
    teacher, student = shaken(small("bert")), small("bert", layers=2)
    initialise(student, teacher, SAME, layers=[1, 3])
    found = student.bert.encoder.layer.state_dict()
    for own, given in ((0, 1), (1, 3)):
        for name, value in teacher.bert.encoder.layer[given].state_dict().items():
            torch.testing.assert_close(found[f"{own}.{name}"], value)
