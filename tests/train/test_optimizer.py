import pytest
import torch
from torch import nn

from train import optimizer as made_by
from train.checkpoint import Trainee, load_state, save_state
from train.optimizer import optimizers_of, orthogonal
from train.student import Shape, build

SETTINGS = {"learning_rate": 0.01, "weight_decay": 0.1, "beta2": 0.98, "epsilon": 1e-6}


def modules(architecture="distilbert"):
    torch.manual_seed(0)
    student = build(Shape(2, 16, 4, 24, 30, 16, architecture=architecture, dropout=0.0))
    return {"student": student, "head": nn.Linear(16, 3)}


def names_of(found, given):
    names = {id(p): f"{k}.{n}" for k, m in given.items() for n, p in m.named_parameters()}
    return [[names[id(p)] for g in o.param_groups for p in g["params"]] for o in found]


@pytest.mark.parametrize("architecture", ["distilbert", "bert"])
def test_muon_has_the_matrices_inside_the_student_and_adamw_the_rest(architecture):
    given = modules(architecture)
    adamw, muon = names_of(optimizers_of(given, kind="muon", **SETTINGS), given)
    every = [f"{k}.{n}" for k, m in given.items() for n, _ in m.named_parameters()]
    assert sorted(adamw + muon) == sorted(every)
    assert len(muon) == 2 * 6 + 1  # of each layer, and before the table of pieces
    assert all(n.startswith("student.") and n.endswith(".weight") for n in muon)
    assert not [n for n in muon if "embeddings" in n or "norm" in n.lower()]
    [adamw] = names_of(optimizers_of(given, kind="adamw", **SETTINGS), given)
    assert sorted(adamw) == sorted(every)


def test_matrices_alone_decay():
    for optimizer in optimizers_of(modules(), kind="muon", **SETTINGS):
        for group in optimizer.param_groups:
            dims = {p.dim() for p in group["params"]}
            assert (dims == {1}) == (group["weight_decay"] == 0.0)


def test_a_step_of_muon_moves_all_directions_alike_and_as_far_as_adamw():
    given = modules()
    matrix = given["student"].distilbert.transformer.layer[0].ffn.lin1.weight  # [24, 16]
    before = matrix.detach().clone()
    matrix.grad = torch.randn_like(matrix) * torch.logspace(0, -3, 16)  # directions of all sizes
    adamw, muon = optimizers_of(given, kind="muon", **(SETTINGS | {"weight_decay": 0.0}))
    muon.step()
    step = (matrix.detach() - before) / SETTINGS["learning_rate"]
    values = torch.linalg.svdvals(step)
    assert values.max() < 4 * values.median()  # the gradient's: hundreds of times
    assert 0.1 < step.square().mean().sqrt() < 0.4  # AdamW's steps: 0.2 to 0.4 times its rate
    assert adamw.param_groups[0]["lr"] == muon.param_groups[0]["lr"]


def test_in_float32_it_is_what_torch_computes(monkeypatch):
    """But for the rounding of bfloat16; and it goes on from the same state."""
    ends = []
    for has in (True, False):
        monkeypatch.setattr(made_by, "multiplies_bfloat16", lambda _, has=has: has)
        given = modules()
        made = optimizers_of(given, kind="muon", **SETTINGS)
        assert (type(made[1]) is torch.optim.Muon) == has
        train(given, made, range(3))
        ends.append((given, made[1]))
    (torchs, muon), (ours, float32) = ends
    start = modules()["student"].state_dict()
    for (name, a), b in zip(
        torchs["student"].named_parameters(), ours["student"].parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, atol=5e-3, rtol=0)  # of three steps of 0.01
        if "lin1.weight" in name:
            assert (a - start[name]).abs().max() > 0.01
            turned = [x - start[name] for x in (a, b)]
            assert torch.cosine_similarity(*(x.flatten() for x in turned), dim=0) > 0.999
    states = [o.state_dict() for o in (muon, float32)]
    assert [list(s) for s in states[0]["state"].values()] == [
        list(s) for s in states[1]["state"].values()
    ]
    float32.load_state_dict(states[0])


@pytest.mark.parametrize("shape", [(6, 6), (5, 9), (9, 5)])
def test_singular_values_come_near_one(shape):
    torch.manual_seed(1)
    matrix = torch.randn(shape)
    turned = orthogonal(matrix, (3.4445, -4.775, 2.0315), steps=5, epsilon=1e-7)
    assert turned.shape == matrix.shape
    values = torch.linalg.svdvals(turned)
    assert values.min() > 0.5 and values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ turned @ v.T  # the same directions
    torch.testing.assert_close(inner, torch.diag(inner.diag()), atol=1e-4, rtol=0)


def train(given, optimizers, steps):
    for step in steps:
        ids = torch.randint(30, (4, 8), generator=torch.Generator().manual_seed(step))
        states = given["student"].distilbert(ids, torch.ones_like(ids))[0]
        given["head"](states).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def test_both_go_on_from_a_checkpoint(tmp_path):
    whole, cut, resumed = modules(), modules(), modules()
    train(whole, optimizers_of(whole, kind="muon", **SETTINGS), range(6))
    optimizers = optimizers_of(cut, kind="muon", **SETTINGS)
    train(cut, optimizers, range(3))
    save_state(tmp_path, Trainee(cut, optimizers), step=3)
    optimizers = optimizers_of(resumed, kind="muon", **SETTINGS)
    assert load_state(tmp_path, Trainee(resumed, optimizers)) == (3, 0.0)
    train(resumed, optimizers, range(3, 6))
    for name, module in whole.items():
        for a, b in zip(module.parameters(), resumed[name].parameters(), strict=True):
            assert torch.equal(a, b)
    first, started = (next(m["student"].parameters()) for m in (whole, modules()))
    assert not torch.equal(first, started)
