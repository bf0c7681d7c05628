"""What a load test demands, and what it makes of its samples."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

LOADTEST = Path(__file__).parents[2] / "loadtest"
sys.path.insert(0, str(LOADTEST))  # its files import each other by their plain names

from memory import Memory, family, resident  # noqa: E402
from plan import Limit, Profile, Stage, load_profile  # noqa: E402
from report import Sample, judge, knee, summarize, write_report  # noqa: E402

STAGES = (Stage("calm", 10, 10, 10), Stage("ramp", 10, 10, 110))


def profile(*limits, **changes):
    return Profile("p", STAGES, limits, {"one": 1.0}, **changes)


def sample(stage, due, ms, status=200):
    return Sample(stage, "one", due, due, due + ms / 1000, status, 0.1, 1.0, 1.5)


@pytest.mark.parametrize(
    "path", sorted((LOADTEST / "profiles").glob("*.toml")), ids=lambda p: p.stem
)
def test_our_own_profiles_are_fine(path):
    found = load_profile(path)
    assert found.seconds > 0 and found.name == path.stem


def test_the_rate_follows_the_stages():
    found = profile()
    assert [found.rate(s) for s in (0, 9.9, 15, 20)] == [10, 10, 60, 0]
    assert [found.stage(s) for s in (0, 15, 20)] == ["calm", "ramp", ""]


def test_rates_may_be_multiples_of_the_knee():
    stages = (*STAGES, Stage("twice", 10, 2, 2, in_knees=True))
    found = Profile("p", stages, (), {"one": 1.0})
    assert found.rate(25, 300.0) == 600 and found.rate(5, 300.0) == 10
    assert found.needs_knee(25) and not found.needs_knee(5) and not found.needs_knee(31)


def test_a_knee_has_to_be_shown_first(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(
        '[mix]\none = 1.0\n[[stages]]\nname = "a"\nseconds = 1\nstart = 1\nin_knees = true\n'
    )
    with pytest.raises(ValueError, match="no stage before it shows a knee"):
        load_profile(path)


def test_mistakes_of_a_profile_are_told_together(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(
        'colour = 1\n[mix]\nten = 1.0\n[[stages]]\nname = "a"\nseconds = 1\nstart = 1\n'
        '[[limits]]\nstage = "b"\n'
    )
    with pytest.raises(ValueError, match="colour"):
        load_profile(path)
    path.write_text(path.read_text().replace("colour = 1\n", ""))
    with pytest.raises(ValueError, match="no stage 'b'.*'ten' is none of one"):
        load_profile(path)


def test_latency_counts_from_the_intended_start():
    late = Sample("calm", "one", 1.0, 1.5, 1.6, 200, 0, 0, 0)  # started half a second late
    (row, *_) = summarize([late], profile())
    assert row["p50"] == pytest.approx(600)


def test_limits_are_judged_by_stage_and_kind():
    samples = [sample("calm", i / 10, 10) for i in range(95)]
    samples += [sample("calm", 9.9, 500)] * 4 + [sample("calm", 9.9, 1, status=429)]
    plan = profile(
        Limit("calm", "one", p50=20, p99=100, failures=0, refused=0),
        Limit("calm", goodput=5),
        Limit("ramp", failures=0),
    )
    told = judge(summarize(samples, plan), plan)
    assert len(told) == 3
    assert told[0].startswith("calm one: p99") and told[1].startswith("calm one: refused 0.01")
    assert told[2] == "ramp all: no requests were sent"


def test_overload_is_judged_by_the_knee_and_by_quick_refusals():
    samples = [sample("calm", i / 20, 10) for i in range(100)]
    samples += [sample("calm", i / 20, 80, status=429) for i in range(100)]
    plan = profile(Limit("calm", goodput_knees=0.9, refused_p99=50, p99_to_p50=5))
    table = summarize(samples, plan)
    assert judge(table, plan, knee=11) == ["calm all: 429 p99 80, at most 50"]
    told = judge(table, plan, knee=12)
    assert told[-1] == "calm all: goodput 10/s, at least 10.8/s" and len(told) == 2


def test_a_stage_without_answers_keeps_no_limit():
    """A server that refuses everything has a latency of nothing, and no failures."""
    plan = profile(Limit("calm", p99=50, failures=0))
    table = summarize([sample("calm", i / 20, 1, status=429) for i in range(20)], plan)
    assert judge(table, plan) == ["calm all: no request was answered"]


def test_overload_asks_for_recovery():
    [after] = [
        x
        for x in load_profile(LOADTEST / "profiles" / "overload.toml").limits
        if x.stage == "after"
    ]
    assert after.refused == 0


def test_memory_is_judged():
    plan = profile(memory_growth=0.05)
    table = summarize([sample("calm", 1, 10)], plan)
    assert judge(table, plan, growth=0.04) == []
    assert judge(table, plan, growth=0.06) == ["memory: grew by 6.0%, at most 5.0%"]
    assert "LOADTEST_PID" in judge(table, plan)[0]


def test_memory_of_a_process_and_its_children():
    words = [sys.executable, "-c", "import sys; b = b'x' * (50 << 20); input()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as child:
        while resident(child.pid) < 50:
            time.sleep(0.05)
        assert child.pid in family(os.getpid())
        child.communicate(b"\n")
    assert resident(child.pid) == 0 and child.pid not in family(os.getpid())


def test_growth_leaves_out_what_fills_first(tmp_path):
    watched = Memory(0)
    watched.megabytes = [10.0] * 10 + [100.0] * 80 + [103.0] * 10
    assert watched.growth == pytest.approx(0.03)
    assert "10 to 103 MB, +3.0%" in watched.text
    watched.plot(tmp_path / "memory.png")
    assert (tmp_path / "memory.png").stat().st_size > 1000
    assert Memory(0).growth is None


def test_the_knee_is_the_last_rate_that_kept_up():
    samples = []
    for second in range(20):
        rate = 10 * (second + 1)
        slow = 10 if rate <= 120 else 400
        samples += [sample("ramp", second + i / rate, slow) for i in range(rate)]
    assert knee(samples) == pytest.approx(115)  # of the two seconds at 110 and 120
    assert knee([]) == 0
    assert knee(samples, within=0.005) == 0


def test_a_report_is_written_whole(tmp_path):
    samples = [sample("calm", i / 10, 5 + i % 7) for i in range(100)]
    plan = profile(Limit("calm", p50=1))
    table = summarize(samples, plan)
    text = write_report(samples, table, judge(table, plan), plan, tmp_path)
    assert "BREACHED: calm all: p50" in text and "knee: 10 requests/s" in text
    assert "p99 kept: 10/s at 25 ms" in text
    for name in ("latency.png", "histogram.png", "report.html", "summary.json"):
        assert (tmp_path / name).stat().st_size > 100
