import math
from dataclasses import replace

import pytest
import torch

from train.distil import distil
from train.loop import Schedule
from train.recipe import Recipe
from train.span import binary_match, mask_groups, span_loss
from train.student import encoder_states, output_rows

from .toy_pair import STUDENT, TEACHER, losses_of, pair_of, shards_of


def seeded():
    return torch.Generator().manual_seed(0)


def text_of(spec, ids):
    names = {i: p for p, i in spec["model"]["vocab"].items()}
    return "".join(names[int(i)].removeprefix("##") for i in ids)


def test_whole_groups_are_masked_on_both_sides(tmp_path, write_tokenizer):
    batch = shards_of(tmp_path, write_tokenizer, TEACHER, STUDENT).batch(range(30))
    vocabularies = pair_of(TEACHER, STUDENT).vocabularies
    found = mask_groups(batch, vocabularies, share=0.3, generator=seeded())
    assert (found.student_ids[found.student_places] == vocabularies.mask_id).all()
    assert (found.teacher_ids[found.teacher_places] == vocabularies.teacher_mask_id).all()
    masked = 0
    for row in range(30):
        hidden = [
            text_of(spec, ids[row][places[row]])
            for spec, ids, places in (
                (STUDENT, batch.student_ids, found.student_places),
                (TEACHER, batch.teacher_ids, found.teacher_places),
            )
        ]
        assert hidden[0] == hidden[1]
        groups = batch.student_group[row][found.student_places[row]].unique()
        for group in groups:
            members = (batch.student_group[row] == group) & batch.student_mask[row]
            assert found.student_places[row][members].all()
        masked += len(groups)
    special = vocabularies.special[batch.student_ids] & batch.student_mask
    assert not (found.student_places & special).any()
    real = batch.student_mask & ~special
    groups = sum(len(batch.student_group[r][real[r]].unique()) for r in range(30))
    assert masked == math.ceil(0.3 * groups)


def test_words_that_the_teacher_cannot_read_are_not_drawn(tmp_path, write_tokenizer):
    batch = shards_of(tmp_path, write_tokenizer, TEACHER, STUDENT).batch(range(30))
    vocabularies = pair_of(TEACHER, STUDENT).vocabularies
    all_of_them = mask_groups(batch, vocabularies, share=1.0, generator=seeded())
    ids = batch.teacher_ids.clone()
    ids[:, 2] = vocabularies.teacher_unk_id
    blind = replace(batch, teacher_ids=ids)
    found = mask_groups(blind, vocabularies, share=1.0, generator=seeded())
    assert all_of_them.teacher_places[:, 2].any() and not found.teacher_places[:, 2].any()
    lost = batch.teacher_group[:, 2:3] == batch.student_group
    assert not (found.student_places & lost).any()
    kept = all_of_them.student_places & ~lost
    assert torch.equal(found.student_places, kept)


def test_binary_match_of_a_worked_row():
    wanted, given = torch.tensor([math.log(0.25)]), torch.tensor([math.log(0.81)])
    # At T = 2: p_t = 0.5, p_s = 0.9.
    expected = -2 * (0.5 * math.log(0.9) + 0.5 * math.log(0.1))
    assert float(binary_match(wanted, given, temperature=2.0)) == pytest.approx(expected, abs=1e-5)


def test_the_same_likelihood_is_best():
    given = torch.tensor([-3.0, -0.5, -40.0], requires_grad=True)
    binary_match(given.detach(), given, temperature=100.0).backward()
    assert given.grad.abs().max() < 1e-4
    off = given.detach() - 1
    assert binary_match(given.detach(), off, temperature=100.0) > binary_match(
        given.detach(), given.detach(), temperature=100.0
    )


def test_a_word_is_as_likely_as_its_pieces_together(tmp_path, write_tokenizer):
    batch = shards_of(tmp_path, write_tokenizer, TEACHER, STUDENT).batch(range(8))
    pair = pair_of(TEACHER, STUDENT)
    masked = mask_groups(batch, pair.vocabularies, share=0.5, generator=seeded())
    sides = {}
    for name, model in (("teacher", pair.teacher), ("student", pair.student)):
        ids, mask, group = (getattr(batch, f"{name}_{part}") for part in ("ids", "mask", "group"))
        hidden, places = getattr(masked, f"{name}_ids"), getattr(masked, f"{name}_places")
        with torch.no_grad():
            states = encoder_states(model, hidden, mask)[-1]
            transform, weight, bias = output_rows(model)
            chances = (transform(states) @ weight.T + bias).log_softmax(-1)
        total = {}
        for row, column in places.nonzero().tolist():
            key = row, int(group[row, column])
            value = float(chances[row, column, ids[row, column]])
            total[key] = total.get(key, 0.0) + value
        sides[name] = states, total
    (t_states, wanted), (s_states, given) = sides["teacher"], sides["student"]
    assert set(wanted) == set(given)
    keys = sorted(wanted)
    expected = binary_match(
        torch.tensor([wanted[k] for k in keys]),
        torch.tensor([given[k] for k in keys]),
        temperature=100.0,
    )
    with torch.no_grad():
        found = span_loss(batch, masked, (pair.teacher, t_states), (pair.student, s_states))
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


def test_span_adds_to_any_alignment_and_trains(tmp_path, write_tokenizer):
    texts = shards_of(tmp_path, write_tokenizer, TEACHER, STUDENT)
    batch = texts.batch(range(10))
    for alignment, names in (("none", {"mlm", "span"}), ("match", {"mlm", "span", "kl"})):
        found = losses_of(pair_of(TEACHER, STUDENT), batch, alignment=alignment, span=1.0)
        assert set(found) == names and all(v.requires_grad for v in found.values())
    pair = pair_of(TEACHER, STUDENT)
    before = losses_of(pair, batch, alignment="none", mlm=0.0, span=1.0)["span"].item()
    schedule = Schedule(steps=60, tokens_per_batch=400, learning_rate=5e-3, validate_steps=1000)
    recipe = Recipe(alignment="none", mlm=0.0, span=1.0)
    out = tmp_path / "run"
    out.mkdir()
    distil(pair, texts, None, recipe=recipe, schedule=schedule, out=out)
    after = losses_of(pair, batch, alignment="none", mlm=0.0, span=1.0)["span"].item()
    assert after < before
