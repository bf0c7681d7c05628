import pytest
import torch

from train.crossentropy import linear_cross_entropy
from train.losses import kl, masked_lm
from train.objective import split_teacher_pieces
from train.span import mask_groups
from train.student import output_rows

from .toy_pair import LINES, STUDENT, TEACHER, losses_of, pair_of, shards_of


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
