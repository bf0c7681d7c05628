import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from train.distil import distil
from train.loop import Schedule
from train.recipe import Recipe

from .toy_pair import STUDENT, TEACHER, pair_of, shards_of

ROOT = Path(__file__).parents[2]


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


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.train.toy_pair import TEACHER, STUDENT, pair_of
from train.batches import Texts
from train.distil import distil
from train.loop import Schedule
from train.recipe import Recipe
shards, out = Path({shards!r}), Path(sys.argv[1])
schedule = Schedule(steps=60, tokens_per_batch=128, accumulation=2, checkpoint_steps=7, log_steps=1,
                    validate_steps=20, learning_rate=5e-3, optimizer={optimizer!r})
recipe = Recipe(alignment="reduce", hidden=0.5, contrastive=0.1, negatives=4, positions=40)
distil(pair_of(TEACHER, STUDENT), Texts.open(shards, "train"), Texts.open(shards, "valid"),
       recipe=recipe, schedule=schedule, out=out)
"""


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_that_was_killed_goes_on_exactly(tmp_path, write_tokenizer, optimizer):
    """kill -9 in the middle, twice: the losses equal those of a run that was left alone."""
    shards_of(tmp_path, write_tokenizer, TEACHER, STUDENT)
    script = tmp_path / "run.py"
    script.write_text(
        SCRIPT.format(root=str(ROOT), shards=str(tmp_path / "shards"), optimizer=optimizer)
    )

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
