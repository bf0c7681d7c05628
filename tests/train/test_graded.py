import json
import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from rubert_lite.errors import ConfigError, InputError
from train.checkpoint import read_metrics
from train.graded import GradedPairs, graded_loss
from train.sentence_losses import grade_order
from train.tasks import Task

from .test_sentence import SPEC, data_of, run

ROWS = [
    ("дом", "дом дом", 1),
    ("дом", "мир", -1),
    ("привет мир", "привет", 0),
    ("мир", "хорошая", -1),
]
OTHERS = [("дом", "привет", 3.5), ("мир", "мир мир", 4)]


def graded(tmp_path, *files, **options):
    tasks = []
    for number, rows in enumerate(files or (ROWS, OTHERS)):
        path = tmp_path / f"grades-{number}.jsonl"
        records = ({"a": a, "b": b, "grade": g} for a, b, g in rows)
        lines = (json.dumps(r, ensure_ascii=False) for r in records)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        tasks.append(Task(path.stem, str(path), "", "spearman", "a", "b", "grade"))
    tokenizer = Tokenizer.from_str(json.dumps(SPEC))
    return GradedPairs.read(tasks, tokenizer, **{"max_length": 16} | options)


def test_order_is_the_smooth_count_of_pairs_in_the_wrong_order():
    cosines = torch.tensor([0.5, 0.8, 0.1, 0.9])
    grades, tasks = torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.tensor([0, 0, 0, 1])
    # Only the first pair is graded above the second and the third; the last is of another task.
    wanted = math.log(1 + math.exp(0.3 / 0.1) + math.exp(-0.4 / 0.1))
    assert float(grade_order(cosines, grades, tasks, temperature=0.1)) == pytest.approx(
        wanted, abs=1e-5
    )


def test_equal_grades_cost_nothing_and_have_a_gradient():
    cosines = torch.tensor([0.5, -0.5], requires_grad=True)
    loss = grade_order(cosines, torch.ones(2), torch.zeros(2))
    loss.backward()
    assert float(loss.detach()) == 0 and cosines.grad.tolist() == [0, 0]


def test_a_batch_has_both_texts_of_each_pair(tmp_path):
    found = graded(tmp_path)
    assert found.counts == (4, 2)
    batch = found.batch(np.asarray([1, 5]))
    tokenizer = Tokenizer.from_str(json.dumps(SPEC))
    for row, text in enumerate(["дом", "мир", "мир", "мир мир"]):
        assert batch.ids[row][batch.mask[row]].tolist() == tokenizer.encode(text).ids
    assert batch.grades.tolist() == [-1, 4] and batch.tasks.tolist() == [0, 1]
    assert found.lengths[5] == batch.mask.shape[1] * 2


def test_a_pair_with_a_held_out_text_stays_out(tmp_path):
    held_out = tmp_path / "dev.txt"
    held_out.write_text("ХОРОШАЯ\n", encoding="utf-8")
    assert graded(tmp_path, exclude=[str(held_out)]).counts == (3, 2)
    held_out.write_text("«Хорошая!»\n", encoding="utf-8")
    assert graded(tmp_path, exclude=[str(held_out)]).counts == (3, 2)
    held_out.write_text("дом\nмир\nпривет\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"grades-0\.jsonl: every record has a text of a held-out"):
        graded(tmp_path, exclude=[str(held_out)])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("дом", "мир", "yes"), ("дом", "сад", 1)], r"label 'yes' is no number"),
        ([("дом", "мир", "nan"), ("дом", "сад", 1)], r"label 'nan' is no number"),
        ([("дом", "мир", 1), ("дом", "сад", 1)], r"one grade, 1: expected at least two"),
    ],
)
def test_grades_that_order_nothing_are_refused(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        graded(tmp_path, rows)


def test_first_dimensions_have_to_do_alone(tmp_path):
    batch = graded(tmp_path, ROWS).batch(np.arange(4))
    vectors = torch.nn.functional.one_hot(torch.arange(8) % 4, 8).float()  # cosines of 1
    vectors[5:] = torch.nn.functional.one_hot(torch.tensor([5, 6, 7]), 8).float()
    whole = graded_loss(vectors, batch, (), temperature=0.05)
    both = graded_loss(vectors, batch, (4,), temperature=0.05)
    short = graded_loss(vectors[:, :4], batch, (), temperature=0.05)
    assert float(both) == pytest.approx((float(whole) + float(short)) / 2, abs=1e-5)


def test_the_stage_learns_the_grades(tmp_path):
    data = data_of(tmp_path, valid_share=0.2)
    run(
        tmp_path,
        data,
        tmp_path / "run",
        steps=60,
        language=False,
        graded=graded(tmp_path),
        grades=1.0,
    )
    losses = [
        r["grades"] for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if "grades" in r
    ]
    assert losses[0] > 1 and losses[-1] < 0.2 * losses[0]


def test_a_weight_without_pairs_is_refused(tmp_path):
    data = data_of(tmp_path)
    with pytest.raises(ConfigError, match=r"sentence\.grades is above 0"):
        run(tmp_path, data, tmp_path / "run", language=False, grades=1.0)
