import math
from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rubert_lite.errors import InputError
from train.losses import (
    PieceMap,
    group_sum,
    kl,
    masked_lm,
    project_to_classes,
    reduce_map,
    shared_logits,
    soft_cross_entropy,
    tail_logits,
    word_kl,
)
from train.masking import Masking, mask_tokens


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


TEACHER = torch.tensor([[2.0, 0.0, -2.0], [0.0, 0.0, 0.0]])
STUDENT = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])


def test_kl_of_the_worked_rows() -> None:
    assert kl(TEACHER[:1], STUDENT[:1], temperature=2.0).item() == pytest.approx(0.517443, abs=1e-6)
    assert kl(TEACHER, STUDENT, temperature=2.0).item() == pytest.approx(0.258721, abs=1e-6)


def test_kl_ignores_a_shift_and_is_not_negative() -> None:
    teacher, student = normal(50, 7), normal(50, 7, seed=1)
    value = kl(teacher, student, temperature=3.0)
    shifted = kl(teacher + 100, student - normal(50, 1, seed=2), temperature=3.0)
    torch.testing.assert_close(value, shifted)
    for row in range(50):
        assert kl(teacher[row : row + 1], student[row : row + 1]) > 0
    assert kl(teacher, teacher + 5).abs() < 1e-12


@pytest.mark.parametrize("tail", [False, True])
def test_kl_without_rows_is_zero_with_a_graph(tail: bool) -> None:
    student = torch.zeros(0, 4, requires_grad=True)
    rest = (torch.zeros(0), torch.zeros(0)) if tail else None
    value = kl(torch.zeros(0, 4), student, tail=rest)
    assert value.item() == 0.0
    value.backward()
    assert student.grad is not None


def test_kl_with_a_tail_of_one_class_is_the_full_kl() -> None:
    teacher, student = normal(6, 5), normal(6, 5, seed=1)
    ids = torch.tensor([4, 0, 1, 3])  # class 2 is outside
    t, t_tail = shared_logits(teacher, ids, temperature=2.0, tail=True)
    s, s_tail = shared_logits(student, ids, temperature=2.0, tail=True)
    assert t_tail is not None and s_tail is not None
    with_tail = kl(t, s, temperature=2.0, tail=(t_tail, s_tail))
    torch.testing.assert_close(with_tail, kl(teacher, student, temperature=2.0))
    assert not torch.isclose(with_tail, kl(t, s, temperature=2.0))


def test_kl_with_an_empty_tail_is_the_kl_without_and_has_finite_gradients() -> None:
    teacher, student = normal(6, 5), normal(6, 5, seed=1).requires_grad_()
    everything = torch.arange(5)
    tails = (tail_logits(teacher, everything), tail_logits(student, everything))
    assert tails[0].tolist() == [-math.inf] * 6
    value = kl(teacher, student, tail=tails)
    torch.testing.assert_close(value, kl(teacher, student))
    (gradient,) = torch.autograd.grad(value, student)
    assert gradient.isfinite().all()


def test_kl_of_bfloat16_logits_is_computed_in_float32_under_autocast() -> None:
    teacher, student = normal(4, 9).bfloat16(), normal(4, 9, seed=1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = kl(teacher, student, temperature=2.0)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, kl(teacher.float(), student.float(), temperature=2.0))


def test_tail_is_the_logsumexp_of_the_other_columns_with_its_gradient() -> None:
    logits = normal(130, 6).requires_grad_()  # more rows than one chunk
    ids = torch.tensor([5, 1])
    expected = torch.logsumexp(logits[:, [0, 2, 3, 4]] / 2.0, dim=1)
    tail = tail_logits(logits, ids, 2.0)
    torch.testing.assert_close(tail, expected)
    weights = normal(130, seed=3)
    (got,) = torch.autograd.grad((tail * weights).sum(), logits)
    (want,) = torch.autograd.grad((expected * weights).sum(), logits)
    torch.testing.assert_close(got, want)


def test_word_kl_leaves_padding_out_or_keeps_it_in_the_mean() -> None:
    teacher, student = normal(2, 3, 5), normal(2, 3, 5, seed=1)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    rows = mask.bool()
    real = word_kl(teacher, student, mask)
    torch.testing.assert_close(real, kl(teacher[rows], student[rows], temperature=15.0))
    torch.testing.assert_close(word_kl(teacher, student, mask, count_padding=True), real * 4 / 6)
    student[1, 1:] = 1e4  # padding adds exactly nothing
    assert word_kl(teacher, student, mask).item() == real.item()


def test_soft_cross_entropy_is_kl_plus_the_teachers_entropy() -> None:
    teacher, student = normal(5, 4), normal(5, 4, seed=1)
    p = F.softmax(teacher, dim=1)
    entropy = -(p * p.log()).sum(1).mean()
    torch.testing.assert_close(soft_cross_entropy(teacher, student), kl(teacher, student) + entropy)


def test_classes_projected_alone_are_columns_of_all_logits() -> None:
    hidden, weight, bias = normal(3, 4), normal(9, 4, seed=1), normal(9, seed=2)
    ids = torch.tensor([7, 0, 3])
    expected = F.linear(hidden, weight, bias)[:, ids]
    torch.testing.assert_close(project_to_classes(hidden, weight, bias, ids), expected)
    torch.testing.assert_close(project_to_classes(hidden, weight[ids], bias[ids]), expected)


# [CLS] хоро|##шая перевод of METHODS' worked sentence, one padding row
PARTS = torch.tensor([[1.0, 0, 2], [3, 1, 0], [0, 5, 0], [2, 2, 2], [9, 9, 9]])
OWNER = torch.tensor([0, 1, 1, 2, -1])


def test_group_sum_of_the_worked_pieces() -> None:
    assert group_sum(PARTS, OWNER, 3).tolist() == [[1, 0, 2], [3, 6, 0], [2, 2, 2]]
    assert group_sum(PARTS, OWNER, 3, mean=True).tolist() == [[1, 0, 2], [1.5, 3, 0], [2, 2, 2]]
    batched = group_sum(PARTS[:4].reshape(2, 2, 3), OWNER[:4].reshape(2, 2), 3)
    assert batched.tolist() == [[1, 0, 2], [3, 6, 0], [2, 2, 2]]


def test_padding_adds_exactly_nothing_even_if_not_a_number() -> None:
    values = PARTS.clone()
    values[4] = math.nan
    assert group_sum(values, OWNER, 3).tolist() == group_sum(PARTS, OWNER, 3).tolist()
    assert group_sum(PARTS, OWNER, 4)[3].tolist() == [0, 0, 0]  # an empty group


@pytest.mark.parametrize("mean", [False, True])
def test_group_sum_gradient(mean: bool) -> None:
    values = normal(5, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: group_sum(v, OWNER, 3, mean=mean), (values,))


def padded_reduce_map(logits: Tensor, splits: list[list[int]], mode: str) -> Tensor:
    """The published form: gather [N, V_t, longest split] through a dummy column, then combine."""
    longest = max(map(len, splits))
    size = logits.shape[1]
    table = torch.tensor([s + [size] * (longest - len(s)) for s in splits])
    fill = 0.0 if mode == "sum" else -math.inf
    gathered = F.pad(logits, (0, 1), value=fill)[:, table]
    return gathered.sum(2) if mode == "sum" else torch.logsumexp(gathered, dim=2)


def sampled_gradient(
    gradient: Tensor, splits: list[list[int]], size: int, *, counts: Tensor, most: int
) -> Tensor:
    """The published backward of "sum": a piece hears `most` teacher pieces, by frequency."""
    result = torch.zeros(len(gradient), size, dtype=gradient.dtype)
    for piece in range(size):
        users = torch.tensor([v for v, split in enumerate(splits) if piece in split])
        if len(users) > most:
            users = users[torch.multinomial(counts[users], most, generator=seeded(42))]
        if len(users):
            result[:, piece] = gradient[:, users].sum(1)
    return result


def test_reduce_map_of_the_worked_row() -> None:
    piece_map = PieceMap.of([[0], [0, 1], [2, 1]], 3)
    row = torch.tensor([[3.0, 6.0, 0.0]])
    assert reduce_map(row, piece_map, mode="sum").tolist() == [[3, 9, 6]]
    expected = torch.tensor([[3.0, 6.048587, 6.002476]])
    torch.testing.assert_close(reduce_map(row, piece_map, mode="logsumexp"), expected)


SPLITS = [[0], [0, 1], [4, 1, 1], [3], [2, 0, 4], [3, 4]]  # ##1|##1: a piece may stand twice


@pytest.mark.parametrize("mode", ["sum", "logsumexp"])
def test_reduce_map_is_the_padded_form_with_an_exact_gradient(mode: str) -> None:
    piece_map = PieceMap.of(SPLITS, 5)
    logits = normal(70, 5, seed=4).mul_(5).requires_grad_()  # more rows than one chunk
    got, want = reduce_map(logits, piece_map, mode=mode), padded_reduce_map(logits, SPLITS, mode)
    torch.testing.assert_close(got, want)
    weights = normal(70, 6, seed=5)
    torch.testing.assert_close(
        torch.autograd.grad((got * weights).sum(), logits),
        torch.autograd.grad((want * weights).sum(), logits),
    )
    few = normal(2, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: reduce_map(z, piece_map, mode=mode), (few,))


def test_sampled_gradient_is_exact_only_while_nothing_is_dropped() -> None:
    splits = [[v % 3] for v in range(12)]  # each student piece serves four teacher pieces
    logits = normal(2, 3).requires_grad_()
    weights = normal(2, 12, seed=1)
    mapped = reduce_map(logits, PieceMap.of(splits, 3), mode="sum")
    (exact,) = torch.autograd.grad((mapped * weights).sum(), logits)
    counts = torch.ones(12)
    torch.testing.assert_close(sampled_gradient(weights, splits, 3, counts=counts, most=4), exact)
    sampled = sampled_gradient(weights, splits, 3, counts=counts, most=2)
    assert not torch.isclose(sampled, exact).any()


def test_reduce_map_logsumexp_is_safe_far_below_the_greatest_logit() -> None:
    piece_map = PieceMap.of([[0], [1, 2]], 3)
    row = torch.tensor([[300.0, -300.0, -300.0]], requires_grad=True)  # exp underflows in float32
    mapped = reduce_map(row, piece_map, mode="logsumexp")
    torch.testing.assert_close(mapped, torch.tensor([[300.0, -300.0 + math.log(2)]]))
    mapped.sum().backward()
    assert row.grad is not None
    torch.testing.assert_close(row.grad, torch.tensor([[1.0, 0.5, 0.5]]))


def test_piece_map_leaves_out_pieces_without_a_split_and_refuses_foreign_ids() -> None:
    piece_map = PieceMap.of([[0], [], [1, 0]], 2)
    assert piece_map.teacher_ids.tolist() == [0, 2]
    assert piece_map.offsets.tolist() == [0, 1, 3]
    with pytest.raises(InputError, match="expected 0..1"):
        PieceMap.of([[2]], 2)
    with pytest.raises(InputError, match="the map has 2"):
        reduce_map(torch.zeros(1, 3), piece_map, mode="sum")
    with pytest.raises(InputError, match="expected sum or logsumexp"):
        reduce_map(torch.zeros(1, 2), piece_map, mode="mean")


@pytest.mark.parametrize("mode", ["sum", "logsumexp"])
def test_equal_vocabularies_make_all_alignments_plain_distillation(mode: str) -> None:
    teacher, student = normal(8, 6), normal(8, 6, seed=1)
    plain = kl(teacher, student, temperature=2.0)
    everything, own = torch.arange(6), torch.arange(8)
    match = kl(
        teacher[:, everything], shared_logits(student, everything, tail=False)[0], temperature=2.0
    )
    reduce = kl(teacher, group_sum(student, own, 8), temperature=2.0)
    identity = PieceMap.of([[i] for i in range(6)], 6)
    mapped = kl(teacher, reduce_map(student, identity, mode=mode), temperature=2.0)
    for other in (match, reduce, mapped):
        assert other.item() == pytest.approx(plain.item(), abs=1e-6)


def test_masked_lm() -> None:
    logits, labels = normal(4, 5), torch.tensor([0, 4, 2, -100])
    torch.testing.assert_close(masked_lm(logits, labels), F.cross_entropy(logits[:3], labels[:3]))
    nothing = torch.zeros(0, 5, requires_grad=True)
    value = masked_lm(nothing, torch.zeros(0, dtype=torch.int64))
    value.backward()
    assert value.item() == 0.0


# ids: 0 [PAD], 1 [CLS], 2 [SEP], 3 [MASK], pieces from 4
SPECIAL = torch.tensor([True] * 4 + [False] * 16)


def mask(ids: Tensor, seed: int = 0, *, counts: Tensor | None = None, exponent: float = 0.0):  # type: ignore[no-untyped-def]
    masking = Masking(SPECIAL, 3, counts, exponent)
    return mask_tokens(ids, masking, generator=seeded(seed))


def test_mask_chooses_a_share_of_the_batch_and_never_a_special_piece() -> None:
    ids = torch.tensor([[1, 5, 6, 7, 8, 2], [1, 9, 2, 0, 0, 0]])
    for seed in range(50):
        masked, places = mask(ids, seed)
        assert places.sum() == 1  # ceil(0.15 * 5)
        assert not (places & SPECIAL[ids]).any()
        assert (masked == ids)[~places].all()
    assert mask(torch.tensor([[0, 0]]))[1].sum() == 0


def test_mask_replaces_eighty_ten_ten() -> None:
    ids = torch.full((200, 500), 7)
    masked, places = mask(ids)
    assert places.sum() == 15000
    fate = masked[places]
    assert (fate == 3).float().mean() == pytest.approx(0.8 + 0.1 / 20, abs=0.01)
    assert (fate == 7).float().mean() == pytest.approx(0.1 + 0.1 / 20, abs=0.01)
    assert set(fate.tolist()) == set(range(20))


@pytest.mark.parametrize(("exponent", "share"), [(0.7, 4 / 5), (-0.7, 1 / 5), (0.0, 1 / 2)])
def test_mask_weighs_pieces_by_their_count(exponent: float, share: float) -> None:
    counts = torch.ones(20)
    counts[5] = 4 ** (1 / 0.7)  # so that the weight is 4 or 1/4 of the other's
    ids = torch.tensor([[4, 5]])  # ceil(0.3) = 1 of the two is chosen
    hits = Counter(int(ids[mask(ids, s, counts=counts, exponent=exponent)[1]]) for s in range(2000))
    assert hits[5] / 2000 == pytest.approx(share, abs=0.04)
