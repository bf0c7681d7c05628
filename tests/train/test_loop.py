"""What the training loop refuses, and the rate that it learns at."""

from itertools import repeat

import pytest
import torch
from torch import nn

from rubert_lite.errors import ConfigError
from train.checkpoint import read_metrics
from train.loop import Job, Losses, Schedule, accelerator_of, run_job


def job_of(spoil):
    """Fit a line; `spoil` makes the loss of each micro-batch something else."""
    module = nn.Linear(2, 1)
    count = iter(range(1000))

    def losses(item, generator):
        total = spoil(next(count), module(item).square().mean())
        return Losses({"square": total}, total, 1)

    return Job("toy", {"line": module}, lambda skip: repeat(torch.ones(4, 2)), losses, None)


def infinite_slope(number, loss):
    """The loss is finite, its gradient is not: that of a root at 0."""
    return loss + ((loss - loss.detach()).sqrt() if number == 3 else 0)


SPOILT = {
    "loss": lambda number, loss: loss * (float("nan") if number == 3 else 1.0),
    "loss alone": lambda number, loss: loss + (float("inf") if number == 3 else 0.0),
    "gradient": infinite_slope,
}


@pytest.mark.parametrize("kind", SPOILT)
def test_what_is_no_number_ends_the_run_and_keeps_the_checkpoint(tmp_path, kind):
    schedule = Schedule(steps=4, checkpoint_steps=1, log_steps=1)
    job = job_of(SPOILT[kind])
    told = r"toy: step 4: .*state keeps the checkpoint .*: lower .*learning_rate"
    with pytest.raises(ConfigError, match=told):
        run_job(job, accelerator_of(schedule), schedule=schedule, out=tmp_path)
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["step-00000003"]
    assert [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert torch.isfinite(job.modules["line"].weight).all()


def test_a_broken_micro_batch_among_others_is_told_at_the_first_step(tmp_path):
    schedule = Schedule(steps=2, accumulation=4, checkpoint_steps=1)
    with pytest.raises(ConfigError, match=r"step 1: .*no checkpoint yet"):
        run_job(
            job_of(SPOILT["loss alone"]), accelerator_of(schedule), schedule=schedule, out=tmp_path
        )
    assert not (tmp_path / "state").exists()


def test_by_the_clock_too_the_rate_stays_below_the_learning_rate():
    schedule = Schedule(steps=40, learning_rate=1.0, warmup_share=0.05, max_minutes=1.0)
    rates = [schedule.rate(0, seconds=seconds / 100) for seconds in range(6000)]
    assert max(rates) == pytest.approx(1.0)
    assert schedule.rate(0, seconds=0) == 0.5
