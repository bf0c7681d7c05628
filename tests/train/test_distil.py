import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.train.conftest import wordpiece
from train.batches import Texts
from train.crossentropy import linear_cross_entropy
from train.distil import distil
from train.links import link, link_vocabularies
from train.loop import Schedule
from train.losses import kl, masked_lm
from train.objective import batch_losses, split_teacher_pieces
from train.recipe import Heads, Pair, Recipe
from train.shards import build_shards
from train.span import mask_groups
from train.student import Shape, build, freeze, output_rows

ROOT = Path(__file__).parents[2]
TEACHER = wordpiece("привет", "мир", "хорошая", "перевод", "##чица", "дом", "##ами")
STUDENT = wordpiece("при", "##вет", "мир", "хоро", "##шая", "перевод", "##чи", "##ца")
LINES = ["хорошая переводчица", "привет, мир", "дом и мир", "домами", "мир перевод дом"] * 12


def shards_of(tmp_path, write_tokenizer, teacher, student) -> Texts:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in ("train-000", "valid"):
        (corpus / f"{name}.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    files = write_tokenizer("teacher", teacher), write_tokenizer("student", student)
    out = tmp_path / "shards"
    out.mkdir()
    build_shards(corpus, out, teacher=files[0], student=files[1], max_length=32)
    return Texts.open(out, "train")


def pair_of(teacher_spec, student_spec, *, same: bool = False) -> Pair:
    torch.manual_seed(0)
    known = teacher_spec["model"]["vocab"]
    kept = [known.get(p, -1) for p in student_spec["model"]["vocab"]]
    shape = {
        "layers": 2,
        "hidden_size": 16,
        "heads": 2,
        "ffn_size": 32,
        "max_length": 64,
        "dropout": 0.0,
    }
    teacher = freeze(build(Shape(vocab_size=len(known), **shape)))
    student = build(Shape(vocab_size=len(kept), **shape))
    links = link(teacher_spec, student_spec, kept)
    return Pair(student, teacher, link_vocabularies(teacher_spec, student_spec, kept, links, None))


def losses_of(pair, batch, **recipe):
    generator = torch.Generator().manual_seed(1)
    return batch_losses(batch, pair, Heads(None), recipe=Recipe(**recipe), generator=generator)


def test_equal_vocabularies_give_the_same_loss_by_every_alignment(tmp_path, write_tokenizer):
    """match, reduce, reduce-map and plain distillation agree to 1e-6 (METHODS: first condition)."""
    texts = shards_of(tmp_path, write_tokenizer, TEACHER, TEACHER)
    pair = pair_of(TEACHER, TEACHER)
    batch = texts.batch(range(20))
    found = [
        losses_of(pair, batch, alignment=a, mlm=0.0, positions=10_000, map_mode=mode)["kl"].item()
        for a, mode in (
            ("plain", "sum"),
            ("match", "sum"),
            ("reduce", "sum"),
            ("reduce-map", "sum"),
            ("reduce-map", "logsumexp"),
        )
    ]
    assert found[0] > 0
    assert found == pytest.approx([found[0]] * 5, abs=1e-6)


@pytest.mark.parametrize("alignment", ["match", "reduce", "reduce-map"])
def test_losses_do_not_depend_on_padding(tmp_path, write_tokenizer, alignment):
    texts = shards_of(tmp_path, write_tokenizer, TEACHER, STUDENT)
    pair = pair_of(TEACHER, STUDENT)
    recipe = {"alignment": alignment, "mlm": 0.0, "hidden": 1.0, "positions": 10_000}
    rows = [1, 3]  # of different lengths
    each = [texts.batch([i]) for i in rows]
    places = [
        int((b.student_matched if alignment == "match" else b.teacher_mask).sum()) for b in each
    ]
    alone = [losses_of(pair, b, **recipe) for b in each]
    together = losses_of(pair, texts.batch(rows), **recipe)
    for name in ("kl", "hidden"):
        mean = sum(n * a[name].item() for n, a in zip(places, alone, strict=True)) / sum(places)
        assert together[name].item() == pytest.approx(mean, abs=1e-5)


def test_teacher_pieces_are_written_in_student_pieces(tmp_path, write_tokenizer):
    texts = shards_of(tmp_path, write_tokenizer, TEACHER, STUDENT)
    batch = texts.batch([LINES.index("хорошая переводчица")])
    pair = pair_of(TEACHER, STUDENT)
    ids, mask, owner = split_teacher_pieces(
        batch.teacher_ids, batch.teacher_mask, pair.vocabularies.splits
    )
    names = list(STUDENT["model"]["vocab"])
    shown = [names[i] for i in ids[mask].tolist()]
    assert shown == ["[CLS]", "хоро", "##шая", "перевод", "##чи", "##ца", "[SEP]"]
    assert owner.tolist() == [0, 1, 1, 2, 3, 3, 4]


def test_reduce_compares_the_sums_of_the_parts_logits(tmp_path, write_tokenizer):
    """The head is applied once to summed vectors; that must equal summing the logits themselves."""
    texts = shards_of(tmp_path, write_tokenizer, TEACHER, STUDENT)
    pair = pair_of(TEACHER, STUDENT)
    for model in (pair.student, pair.teacher):
        torch.nn.init.normal_(output_rows(model)[2])  # the bias starts at 0
    batch = texts.batch([LINES.index("хорошая переводчица")])
    found = losses_of(pair, batch, alignment="reduce", mlm=0.0, temperature=1.0)["kl"]
    v = pair.vocabularies
    ids, mask, owner = split_teacher_pieces(batch.teacher_ids, batch.teacher_mask, v.splits)
    logits = pair.student(input_ids=ids, attention_mask=mask.long()).logits[0]
    summed = torch.stack([logits[owner == i].sum(0) for i in range(int(owner.max()) + 1)])
    wanted = pair.teacher(batch.teacher_ids).logits[0]
    expected = kl(wanted[:, v.teacher_classes], summed[:, v.student_classes])
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)


def test_every_teacher_piece_has_student_pieces():
    pair = pair_of(TEACHER, STUDENT)
    offsets = pair.vocabularies.splits.offsets
    assert len(offsets) == len(TEACHER["model"]["vocab"]) + 1
    assert ((offsets[1:] - offsets[:-1]) >= 1).all()


def test_masking_the_teacher_hides_whole_groups(tmp_path, write_tokenizer):
    texts = shards_of(tmp_path, write_tokenizer, TEACHER, STUDENT)
    pair = pair_of(TEACHER, STUDENT)
    batch = texts.batch(range(10))
    recipe = {"alignment": "match", "mlm": 0.5, "positions": 10_000}
    clean = losses_of(pair, batch, **recipe, mask_teacher=False)
    masked = losses_of(pair, batch, **recipe, mask_teacher=True)
    assert clean["mlm"].item() == masked["mlm"].item()
    assert clean["kl"].item() != masked["kl"].item()


def test_masked_places_alone_are_compared(tmp_path, write_tokenizer):
    """The KL by hand, over the places that are matched and masked, against that of the batch."""
    texts = shards_of(tmp_path, write_tokenizer, TEACHER, STUDENT)
    pair = pair_of(TEACHER, STUDENT)
    v = pair.vocabularies
    batch = texts.batch(range(10))
    recipe = {"alignment": "match", "mlm": 0.0, "span": 1.0, "mask_share": 0.4}
    recipe |= {"mask_teacher": True, "positions": 10_000, "temperature": 1.0}
    found = losses_of(pair, batch, **recipe, compare="masked")["kl"]
    everywhere = losses_of(pair, batch, **recipe, compare="all")["kl"]
    groups = mask_groups(batch, v, share=0.4, generator=torch.Generator().manual_seed(1))
    s_places = batch.student_matched & batch.student_mask
    t_places = batch.teacher_matched & batch.teacher_mask
    kept = groups.student_places[s_places]
    assert 0 < kept.sum() < len(kept)
    given = pair.student(groups.student_ids, batch.student_mask.long()).logits[s_places][kept]
    wanted = pair.teacher(groups.teacher_ids, batch.teacher_mask.long()).logits[t_places][kept]
    expected = kl(wanted[:, v.teacher_classes], given[:, v.student_classes])
    assert found.item() == pytest.approx(expected.item(), abs=1e-7)
    assert abs(found.item() - everywhere.item()) > 1e-4


def test_states_of_whole_words_are_the_means_over_their_pieces(tmp_path, write_tokenizer):
    """The cosines by hand, stretch by stretch, in texts of two lengths; padding does not count."""
    texts = shards_of(tmp_path, write_tokenizer, TEACHER, STUDENT)
    pair = pair_of(TEACHER, STUDENT)
    rows = [LINES.index("хорошая переводчица"), LINES.index("привет, мир")]
    recipe = {"alignment": "match", "mlm": 0.0, "hidden": 1.0}
    found = losses_of(pair, texts.batch(rows), **recipe, hidden_at="words")["hidden"].item()
    # [CLS], the shortest stretches that both sides end together, [SEP]: teacher's, student's places
    words = [
        [((0,), (0,)), ((1,), (1, 2)), ((2,), (3,)), ((3,), (4, 5)), ((4,), (6,))],
        [((0,), (0,)), ((1,), (1, 2)), ((2,), (3,)), ((3,), (4,)), ((4,), (5,))],
    ]
    gaps = []
    for row, places in zip(rows, words, strict=True):
        alone = texts.batch([row])
        teacher = pair.teacher(alone.teacher_ids, output_hidden_states=True).hidden_states
        student = pair.student(alone.student_ids, output_hidden_states=True).hidden_states
        for layer in (1, 2):
            for t, s in places:
                wanted = teacher[layer][0, list(t)].mean(0)
                given = student[layer][0, list(s)].mean(0)
                gaps.append(1 - torch.cosine_similarity(wanted, given, dim=0).item())
    assert found == pytest.approx(sum(gaps) / len(gaps), abs=1e-6)
    matched = losses_of(pair, texts.batch(rows), **recipe)["hidden"].item()
    assert abs(found - matched) > 1e-3


@pytest.mark.parametrize("alignment", ["match", "reduce", "reduce-map", "none"])
def test_training_lowers_the_loss(tmp_path, write_tokenizer, alignment):
    texts = shards_of(tmp_path, write_tokenizer, TEACHER, STUDENT)
    pair = pair_of(TEACHER, STUDENT)
    out = tmp_path / "run"
    out.mkdir()
    schedule = Schedule(
        steps=60, tokens_per_batch=256, learning_rate=1e-2, checkpoint_steps=30, log_steps=1
    )
    distil(
        pair, texts, None, recipe=Recipe(alignment=alignment, mlm=0.5), schedule=schedule, out=out
    )
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == list(range(1, 61))
    first, last = (sum(r["loss"] for r in part) / 10 for part in (records[:10], records[-10:]))
    assert last < 0.9 * first


def test_fused_cross_entropy_equals_the_plain_one(monkeypatch):
    monkeypatch.setattr("train.crossentropy._LinearCrossEntropy.CLASSES", 7)
    torch.manual_seed(0)
    tensors = [torch.randn(s, requires_grad=True) for s in ((5, 4), (30, 4), (30,))]
    labels = torch.randint(30, (5,))
    fused = linear_cross_entropy(*tensors, labels)
    plain = masked_lm(torch.nn.functional.linear(*tensors), labels)
    assert fused.item() == pytest.approx(plain.item(), abs=1e-6)
    for a, b in zip(
        torch.autograd.grad(3 * fused, tensors),
        torch.autograd.grad(3 * plain, tensors),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-6)


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.train.test_distil import TEACHER, STUDENT, pair_of
from train.batches import Texts
from train.distil import distil
from train.loop import Schedule
from train.recipe import Recipe
shards, out = Path({shards!r}), Path(sys.argv[1])
schedule = Schedule(steps=60, tokens_per_batch=128, accumulation=2, checkpoint_steps=7, log_steps=1,
                    validate_steps=20, learning_rate=5e-3)
recipe = Recipe(alignment="reduce", hidden=0.5, contrastive=0.1, negatives=4, positions=40)
distil(pair_of(TEACHER, STUDENT), Texts.open(shards, "train"), Texts.open(shards, "valid"),
       recipe=recipe, schedule=schedule, out=out)
"""


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_exactly(tmp_path, write_tokenizer):
    """kill -9 in the middle, twice: the losses equal those of a run that was left alone."""
    shards_of(tmp_path, write_tokenizer, TEACHER, STUDENT)
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(root=str(ROOT), shards=str(tmp_path / "shards")))

    def start(name: str) -> subprocess.Popen[bytes]:
        (tmp_path / name).mkdir(exist_ok=True)
        return subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / name)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def losses(name: str) -> list[dict]:
        path = tmp_path / name / "metrics.jsonl"
        records = (
            [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        )
        return [{k: v for k, v in r.items() if k != "tokens_s"} for r in records]

    assert start("whole").wait() == 0
    for after in (11, 33):
        process = start("killed")
        while process.poll() is None and len(losses("killed")) < after:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() != 0, "the run ended before it was killed"
    assert start("killed").wait() == 0
    assert losses("killed") == losses("whole")
    assert len(losses("whole")) == 63


def test_a_schedule_by_the_clock_decays_with_the_time():
    schedule = Schedule(steps=1000, learning_rate=1.0, warmup_share=0.1, final_share=0.0)
    timed = Schedule(
        steps=1000, learning_rate=1.0, warmup_share=0.1, final_share=0.0, max_minutes=2.0
    )
    assert timed.rate(3, seconds=6) == schedule.rate(50)  # a slow machine warms up by the clock
    assert timed.rate(100, seconds=66) == pytest.approx(0.5)
    assert timed.rate(100, seconds=0) == schedule.rate(100)
    assert timed.rate(910, seconds=60) == pytest.approx(0.1)  # steps are further on
    assert timed.rate(100, seconds=500) == pytest.approx(0.0)
    assert schedule.time_share(1e9) == 0.0


def test_a_run_by_the_clock_ends_with_a_checkpoint_and_a_judgement(tmp_path, write_tokenizer):
    texts = shards_of(tmp_path, write_tokenizer, TEACHER, STUDENT)
    out = tmp_path / "run"
    out.mkdir()
    found = distil(
        pair_of(TEACHER, STUDENT),
        texts,
        texts,
        recipe=Recipe(alignment="match"),
        schedule=Schedule(steps=10**6, tokens_per_batch=60, max_minutes=0.02),
        out=out,
    )
    assert found["mlm"] > 0
    (state,) = (out / "state").glob("step-*")
    steps = int(state.name.removeprefix("step-"))
    assert 1 <= steps < 10**5
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == steps and "valid" in records[-1]
    assert records[-2]["rate"] < 0.1 * Schedule().learning_rate
