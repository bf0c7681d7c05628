"""bfloat16 where a device multiplies it; emulated it costs a training ten times its time."""

import logging

import pytest
import torch

from train.loop import Schedule, accelerator_of
from train.precision import autocast, worth_it

CPU = torch.device("cpu")


@pytest.mark.parametrize("units", [{}, {"avx512": True}, {"avx512_bf16": True}, {"amx_bf16": True}])
def test_a_cpu_without_units_for_it_trains_in_float32(units, monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    has = any("bf16" in name for name in units)
    with caplog.at_level(logging.WARNING):
        chosen = accelerator_of(Schedule(precision="bf16")).mixed_precision
    assert chosen == ("bf16" if has else "no")
    assert ("would emulate" in caplog.text) != has
    with autocast("bf16", CPU):
        found = torch.ones(2, 2) @ torch.ones(2, 2)
    assert found.dtype == (torch.bfloat16 if has else torch.float32)
    with autocast("no", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert worth_it("no", CPU) == "no"
