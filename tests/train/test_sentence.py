import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from tests.train.conftest import wordpiece
from train.checkpoint import read_metrics
from train.corpus_text import is_valid, text_hash
from train.items import Items, Reading, principal_rotation, write_items
from train.loop import Schedule
from train.pairs import read_lines
from train.recipe import Recipe
from train.sentence import distil_sentences, sentence_losses
from train.sentence_losses import ranking, similarity_kl
from train.sentence_recipe import Language, Sentences, Sources
from train.targets import Targets
from train.vectors import VectorCache

from .toy_pair import TEACHER, pair_of, shards_of

SPEC = wordpiece("привет", "мир", "дом", "пере", "##вод", "хоро", "##шая")
WORDS = ["привет", "мир", "дом", "перевод", "хорошая", "сад", "кот", "лес"]


def unit(*rows):
    return torch.nn.functional.normalize(torch.tensor(rows), dim=1)


def test_ranking_is_the_cross_entropy_of_cosines_both_ways():
    targets, student = unit([1.0, 0.0], [0.0, 1.0]), unit([1.0, 0.0], [0.6, 0.8])
    groups = torch.tensor([0, 1])
    # Student rows against targets: cosines [[1, 0], [.6, .8]]; at temperature .5 doubled.
    rows = math.log(math.exp(2) + 1) - 2, math.log(math.exp(1.2) + math.exp(1.6)) - 1.6
    columns = math.log(math.exp(2) + math.exp(1.2)) - 2, math.log(1 + math.exp(1.6)) - 1.6
    found = ranking(targets, student, groups, temperature=0.5)
    assert float(found) == pytest.approx((sum(rows) / 2 + sum(columns) / 2) / 2, abs=1e-5)


def test_rows_of_one_pair_are_no_negatives_of_each_other():
    targets = unit([1.0, 0.0], [1.0, 0.0], [0.0, 1.0])
    student = unit([1.0, 0.1], [1.0, 0.2], [0.1, 1.0])
    apart = ranking(targets, student, torch.tensor([0, 1, 2]))
    together = ranking(targets, student, torch.tensor([0, 0, 2]))
    assert float(apart) > 0.4 > 0.01 > float(together)


def test_similarity_kl_compares_each_model_with_itself():
    torch.manual_seed(0)
    targets = torch.randn(6, 8)
    rotation = torch.linalg.qr(torch.randn(8, 8)).Q
    groups = torch.arange(6)
    assert float(similarity_kl(targets, 3 * targets @ rotation, groups)) == pytest.approx(
        0, abs=1e-5
    )
    other = torch.randn(6, 4)  # of another width
    t, s = (torch.nn.functional.normalize(v, dim=1) for v in (targets, other))
    expected = 0.0
    for i in range(6):
        rest = [j for j in range(6) if j != i]
        p, q = (torch.softmax((v @ v.T)[i, rest] / 0.2, 0) for v in (t, s))
        expected += float((p * (p / q).log()).sum()) / 6
    found = similarity_kl(targets, other, groups, temperature=0.2)
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_similarity_kl_of_a_single_pair_is_zero_with_a_gradient():
    student = torch.randn(2, 4, requires_grad=True)
    loss = similarity_kl(torch.randn(2, 4), student, torch.tensor([5, 5]))
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(student.grad).all()


def test_rotation_keeps_cosines_and_orders_the_dimensions():
    rng = np.random.default_rng(0)
    low = rng.normal(size=(500, 4)) * [4, 3, 2, 1]
    vectors = low @ np.linalg.qr(rng.normal(size=(10, 10)))[0][:4]
    rotation = principal_rotation(vectors, 6)
    turned = vectors @ rotation
    assert np.allclose(turned @ turned.T, vectors @ vectors.T, atol=1e-3)
    power = (turned**2).sum(0)
    assert (np.diff(power[:4]) < 0).all() and np.allclose(power[4:], 0, atol=1e-6)
    assert principal_rotation(vectors, 12)[:, 10:].tolist() == [[0, 0]] * 10


@pytest.mark.parametrize("whitening", [0.5, 1.0])
def test_a_rotation_can_even_what_the_dimensions_hold(whitening):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5000, 4)) * [8, 4, 2, 1]
    plain = np.sqrt(((vectors @ principal_rotation(vectors, 4)) ** 2).mean(0))
    evened = np.sqrt(((vectors @ principal_rotation(vectors, 4, whitening=whitening)) ** 2).mean(0))
    wanted = (plain / plain[0]) ** (1 - whitening)
    np.testing.assert_allclose(evened / evened[0], wanted, rtol=1e-4)
    dull = np.c_[vectors, np.zeros(5000)]  # nothing to make of a dimension that says nothing
    assert np.isfinite(principal_rotation(dull, 5, whitening=whitening)).all()


def data_of(tmp_path: Path, **reading) -> Path:
    """120 pairs whose teacher vectors follow from their words."""
    rng = np.random.default_rng(1)
    words = {w: rng.normal(size=24) for w in WORDS}
    chosen = [rng.choice(WORDS, size=rng.integers(2, 6)) for _ in range(120)]
    folder = tmp_path / "vectors"
    folder.mkdir()
    teacher = [f"en {i} " + " ".join(t) for i, t in enumerate(chosen)]
    (folder / "teacher.txt").write_text("\n".join(teacher) + "\n", encoding="utf-8")
    text = "\n".join(" ".join(t) for t in chosen) + "\n"
    (folder / "student.txt").write_text(text, encoding="utf-8")
    cache = VectorCache(tmp_path / "cache")
    cache.fill(
        iter(teacher),
        lambda texts: np.asarray([sum(words[w] for w in t.split()[2:]) for t in texts]),
    )
    rows = cache.rows_of(iter(teacher))
    out = tmp_path / "data"
    out.mkdir()
    np.save(out / "rows.npy", rows)
    # The last fifth is of a source that is not judged.
    np.save(folder / "sources.npy", (np.arange(120) >= 96).astype(np.uint8))
    tokenizer = Tokenizer.from_str(json.dumps(SPEC))
    write_items(folder, tokenizer, out, reading=Reading(**reading), unjudged=1)
    return out


def splits_of(data: Path) -> tuple[Items, Items]:
    rows = np.load(data / "rows.npy")
    teachers = np.zeros(len(rows), dtype=np.uint8)
    targets = Targets((VectorCache(data.parent / "cache"),), rows, teachers)
    train, valid = (Items.open(data, s, targets, pad_id=0) for s in ("train", "valid"))
    return train, valid


def test_bare_texts_are_read_beside_the_whole_ones(tmp_path):
    for name in ("plain", "both"):
        (tmp_path / name).mkdir()
    plain, _ = splits_of(data_of(tmp_path / "plain"))
    both, valid = splits_of(data_of(tmp_path / "both", bare_share=1.0))
    assert len(both) == 2 * len(plain) and set(both.pairs) == set(plain.pairs)
    assert not set(both.pairs) & set(valid.pairs)


def test_items_are_the_pairs_texts_with_their_targets(tmp_path):
    out = data_of(tmp_path, valid_share=0.2, noise_share=1.0, teacher_text_share=1.0, max_length=8)
    train, valid = splits_of(out)
    held_out = [
        is_valid(text_hash(t), 0.2) for t in read_lines(tmp_path / "vectors" / "student.txt")
    ]
    assert len(valid) == sum(held_out[:96]) > 10
    assert len(train) == 3 * (120 - sum(held_out)) and sum(held_out[96:]) > 0
    assert not set(train.pairs) & set(valid.pairs)
    assert max(valid.pairs) < 96
    batch = train.batch(np.array([0, 1, 2]))
    assert batch.groups.tolist() == [batch.groups[0]] * 3
    assert (batch.targets == batch.targets[0]).all()
    assert batch.ids.shape[1] <= 8
    cache = VectorCache(tmp_path / "cache")
    row = np.load(out / "rows.npy")[train.pairs[:1]]
    assert (batch.targets[:1].numpy() == cache.vectors(row)).all()


def run(tmp_path, data, out, *, steps=6, language=True, labelled=None, graded=None, **changes):
    torch.manual_seed(0)
    pair = pair_of(TEACHER, SPEC)
    texts = None
    if language:
        texts = Language(changes.pop("texts"), None, Recipe(alignment="none", mlm=1.0))
    sentences = Sentences(
        **{"prefixes": (8,), "contrastive": 0.1, "similarity": 0.1, "language": 0.5} | changes
    )
    train, valid = splits_of(data)
    schedule = Schedule(
        steps=steps,
        tokens_per_batch=160,
        learning_rate=5e-3,
        checkpoint_steps=3,
        validate_steps=steps,
        log_steps=1,
    )
    out.mkdir(exist_ok=True)
    return distil_sentences(
        pair,
        train,
        valid,
        Sources(texts, labelled, graded),
        sentences=sentences,
        schedule=schedule,
        out=out,
    )


@pytest.mark.parametrize(
    ("projection", "whitening"), [("rotation", 0.0), ("rotation", 0.5), ("linear", 0.0), ("map", 0)]
)
def test_the_student_learns_the_teachers_vectors(tmp_path, projection, whitening):
    data = data_of(tmp_path, valid_share=0.2)
    choices = {"projection": projection, "whitening": whitening}
    found = run(tmp_path, data, tmp_path / "run", steps=150, language=False, **choices)
    first = read_metrics(tmp_path / "run" / "metrics.jsonl")[0]
    # A map begins as the best one of what the student says before it has learnt.
    assert first["regression"] < 0.6 if projection == "map" else first["regression"] > 0.6
    assert found["cosine"] > 0.8 and found["recall"] > 0.3
    assert (tmp_path / "run" / "map.npy").is_file() == (projection == "map")


@pytest.mark.parametrize("projection", ["rotation", "map"])
def test_a_resumed_run_gives_the_same_losses(tmp_path, write_tokenizer, projection):
    data = data_of(tmp_path, valid_share=0.2, noise_share=0.5)
    texts = shards_of(tmp_path, write_tokenizer, TEACHER, SPEC)
    choices = {"texts": texts, "projection": projection}
    run(tmp_path, data, tmp_path / "whole", **choices)
    whole = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "state")
    (tmp_path / "cut" / "metrics.jsonl").unlink()
    # The state of step 3 is what a run that was killed after it leaves.
    import train.loop as loop

    saved = loop.save_state

    class Killed(Exception):
        pass

    def save_and_die(folder, trainee, *, step, seconds):
        saved(folder, trainee, step=step, seconds=seconds)
        raise Killed

    loop.save_state = save_and_die
    try:
        with pytest.raises(Killed):
            run(tmp_path, data, tmp_path / "cut", **choices)
    finally:
        loop.save_state = saved
    run(tmp_path, data, tmp_path / "cut", **choices)
    cut = read_metrics(tmp_path / "cut" / "metrics.jsonl")
    assert {"regression", "contrastive", "similarity", "mlm"} <= set(cut[0])
    assert [r.get("loss") for r in cut] == [r.get("loss") for r in whole]


def test_prefixes_are_compared_with_the_prefixes_of_the_targets(tmp_path):
    data = data_of(tmp_path)
    batch = splits_of(data)[0].batch(np.array([0, 1, 2, 3]))
    batch = replace(batch, targets=batch.targets[:, :16].float())
    halved = batch.targets.clone()
    halved[:, 8:] = torch.randn(4, 8)
    whole = sentence_losses(halved, batch, None, sentences=Sentences(prefixes=()))
    both = sentence_losses(halved, batch, None, sentences=Sentences(prefixes=(8,)))
    assert float(both["regression"]) == pytest.approx(float(whole["regression"]) / 2, abs=1e-5)
