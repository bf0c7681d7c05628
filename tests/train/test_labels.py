import json
import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from rubert_lite.errors import ConfigError, InputError
from train.checkpoint import read_metrics
from train.labels import LabelHeads, LabelledTexts
from train.masking import hide_pieces
from train.tasks import Task

from .test_sentence import SPEC, data_of, run

RECORDS = {
    "mood": [("хорошая привет", "good"), ("дом", "bad"), ("мир", "good"), ("привет", "so-so")],
    "place": [("дом дом", "in"), ("мир мир", "out")],
}


def labelled(tmp_path, records=RECORDS, **options):
    tasks = []
    for name, rows in records.items():
        path = tmp_path / f"{name}.jsonl"
        lines = (json.dumps({"text": t, "label": c}, ensure_ascii=False) for t, c in rows)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        tasks.append(Task(name, str(path), "", "accuracy"))
    tokenizer = Tokenizer.from_str(json.dumps(SPEC))
    return LabelledTexts.read(tasks, tokenizer, **{"max_length": 16} | options)


def test_classes_are_counted_over_all_tasks(tmp_path):
    found = labelled(tmp_path)
    assert found.ends == (3, 5) and found.counts == (4, 2)
    assert found.classes.tolist() == [1, 0, 1, 2, 3, 4]  # sorted names: bad, good, so-so; in, out
    batch = found.batch(np.asarray([1, 4]))
    tokenizer = Tokenizer.from_str(json.dumps(SPEC))
    for row, text in enumerate(["дом", "дом дом"]):
        assert batch.ids[row][batch.mask[row]].tolist() == tokenizer.encode(text).ids
    assert batch.classes.tolist() == [0, 3]


def test_held_out_texts_stay_out(tmp_path):
    held_out = tmp_path / "dev.jsonl"
    held_out.write_text(json.dumps({"text": "ДОМ"}) + "\n", encoding="utf-8")
    assert labelled(tmp_path, exclude=[str(held_out)]).counts == (3, 2)


@pytest.mark.parametrize("judged", ["все Ок, мир", "ВСЁ, ок - мир!!!", "всеокмир"])
def test_texts_that_differ_in_signs_and_yo_stay_out(tmp_path, judged):
    held_out = tmp_path / "dev.jsonl"
    held_out.write_text(json.dumps({"text": judged}) + "\n", encoding="utf-8")
    records = {"mood": [*RECORDS["mood"], ("Всё ОК: мир!", "good"), ("всё", "bad")]}
    assert labelled(tmp_path, records, exclude=[str(held_out)]).counts == (5,)


def test_texts_without_letters_are_compared_as_they_are(tmp_path):
    held_out = tmp_path / "dev.jsonl"
    held_out.write_text(json.dumps({"text": ":) )"}) + "\n", encoding="utf-8")
    records = {"mood": [(":))", "good"), (":(", "bad"), ("!", "good"), ("дом", "bad")]}
    assert labelled(tmp_path, records, exclude=[str(held_out)]).counts == (3,)


def test_a_task_whose_every_text_is_held_out_is_refused(tmp_path):
    held_out = tmp_path / "dev.txt"
    held_out.write_text("дом дом\nмир мир\n", encoding="utf-8")
    with pytest.raises(
        InputError, match=r"place\.jsonl: every record has a text of a held-out file"
    ):
        labelled(tmp_path, exclude=[str(held_out)])


def test_one_label_alone_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"mood\.jsonl: one label, 'good'"):
        labelled(tmp_path, {"mood": [("дом", "good"), ("мир", "good")]})


def test_a_class_competes_with_those_of_its_own_task_alone():
    heads = LabelHeads(4, (3, 5))
    with torch.no_grad():
        heads.heads[0].weight.zero_()
        heads.heads[0].bias.copy_(torch.tensor([0.0, 1.0, 2.0, 50.0, 0.0]))
    first = heads(torch.randn(1, 4), torch.tensor([1])).detach()
    assert float(first) == pytest.approx(math.log(1 + math.e + math.e**2) - 1, abs=1e-5)
    second = heads(torch.randn(1, 4), torch.tensor([4])).detach()
    assert float(second) == pytest.approx(50, abs=1e-3)


def test_prefixes_have_heads_of_their_own():
    torch.manual_seed(0)
    heads = LabelHeads(6, (2,), prefixes=(2,))
    vectors = torch.randn(3, 6, requires_grad=True)
    classes = torch.tensor([0, 1, 1])
    heads(vectors, classes).backward()
    alone = LabelHeads(2, (2,))
    alone.heads[0].load_state_dict(heads.heads[0].state_dict())
    short = float(alone(vectors[:, :2], classes).detach())
    longer = 2 * float(heads(vectors, classes).detach()) - short
    assert short > 0 and longer > 0
    assert (vectors.grad[:, 2:] != 0).any()


def test_the_stage_learns_the_labels(tmp_path):
    data = data_of(tmp_path, valid_share=0.2)
    texts = labelled(tmp_path)
    run(tmp_path, data, tmp_path / "run", steps=60, language=False, labelled=texts, labels=1.0)
    losses = [
        r["labels"] for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if "labels" in r
    ]
    assert losses[0] > 0.6 and losses[-1] < 0.5 * losses[0]


def test_a_weight_without_texts_is_refused(tmp_path):
    data = data_of(tmp_path)
    with pytest.raises(ConfigError, match=r"sentence\.labels is above 0"):
        run(tmp_path, data, tmp_path / "run", language=False, labels=1.0)


def test_word_dropout_hides_a_share_of_the_pieces_and_never_the_first():
    mask = torch.ones(200, 50, dtype=torch.bool)
    mask[:, 40:] = False
    generator = torch.Generator().manual_seed(7)
    shown = hide_pieces(mask, 0.25, generator=generator)
    assert shown[:, 0].all() and not shown[:, 40:].any()
    assert float(shown[:, 1:40].float().mean()) == pytest.approx(0.75, abs=0.02)
    assert not torch.equal(shown, hide_pieces(mask, 0.25, generator=generator))
    state = generator.get_state()
    assert hide_pieces(mask, 0.0, generator=generator) is mask
    assert torch.equal(state, generator.get_state())


def test_word_dropout_keeps_labels_from_being_learnt_by_heart(tmp_path):
    data = data_of(tmp_path, valid_share=0.2)
    texts = labelled(tmp_path)
    found = []
    for share in (0.0, 0.9):
        out = tmp_path / f"run-{share}"
        chosen = {"labels": 1.0, "word_dropout": share}
        run(tmp_path, data, out, steps=40, language=False, labelled=texts, **chosen)
        rows = read_metrics(out / "metrics.jsonl")
        found.append([r["labels"] for r in rows if "labels" in r][-1])
    assert found[1] > 1.5 * found[0]
