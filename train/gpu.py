"""What candidates for release and the comparison need of a GPU, in one go of some twelve minutes.

    python -m train.gpu --minutes 12    # in a checkout, with `data`, runs/minilm and what learns on
    python -m train.gpu --only teacher  # a job and what it waits for

Text is worked on while the first teacher trains; students and the rows of the comparison share the
GPU (start CUDA MPS before). Every stage is one of a configuration, so a second run goes on where
this one was stopped.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

# Before libraries start their threads: every process has one, tokenizers two.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAYON_NUM_THREADS", "2")
# Else the parent's look for a GPU would start CUDA, which no fork survives.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

from rubert_lite.errors import ConfigError

from .compare import compare
from .compared import CompareConfig, ComparedStudent, line_of, load_comparison, rows_of
from .config import load_config
from .folders import Line
from .graph import Job, run_jobs
from .line import run_line
from .line_student import train_student
from .line_text import corpus, shards, vocabulary
from .line_vectors import items, pairs, vectors

TEACHER = "teacher-12x512"
# Sentence encoders: candidates for release with the stage that ends each, then rungs.
RELEASES = {"gpu/16k-on": "gpu/16k-on-end", "gpu/16k": "gpu/16k-end", "gpu/5k-on": "gpu/5k-on-end"}
LADDER = ("gpu/ladder/16k", "gpu/ladder/84k", "gpu/ladder/5k", "gpu/ladder/30k")
COMPARISON = "train/configs/compare/gpu.toml"
_FIRST, _LAST, _TEXT = -10, 15, 10  # nice levels


def programme(processes: int) -> dict[str, Job]:
    """Return the jobs; `processes` work on a stage's shards."""
    first = 0 if os.geteuid() else _FIRST
    jobs = {
        "corpus": Job(_stage(corpus, TEACHER)),
        "vocabulary": Job(_stage(vocabulary, TEACHER), ("corpus",)),
        "shards": Job(_stage(shards, TEACHER, processes), ("vocabulary",)),
        "teacher": Job(_stage(train_student, TEACHER), ("shards",), first),
        "pairs": Job(_stage(pairs, "gpu/16k"), nice=first),
        "vectors": Job(_stage(vectors, "gpu/16k"), ("pairs", "vocabulary"), first),
    }
    for name, end in RELEASES.items():
        jobs |= _encoder(name, nice=first)
        jobs[end] = Job(_stage(_sentence, end), (name,), first)
    for name in LADDER:
        jobs |= _encoder(name, counted=True)
    return jobs | _compared(load_comparison(Path(COMPARISON)))


def _encoder(name: str, *, nice: int = 0, counted: bool = False) -> dict[str, Job]:
    """Return the jobs of a sentence encoder: its text, then its trainings."""
    text = f"text of {name}"
    return {
        # Text that waits until rows of the comparison fill the cores is never done.
        text: Job(_stage(_text, name, 4), ("pairs", "shards"), _LAST if counted else nice),
        name: Job(_stage(_sentence, name), ("teacher", "vectors", text), nice, counted),
    }


def _text(line: Line) -> None:
    for stage in (vocabulary, shards, items):
        stage(line)


def _sentence(line: Line) -> None:
    sentence = line.config.sentence
    assert sentence is not None  # of every encoder here
    run_line(line, ("sentence",) if sentence.source else ("distil", "sentence"))


def _compared(config: CompareConfig) -> dict[str, Job]:
    """Return the jobs of a comparison: its text, its teacher task by task, its rows."""
    teacher = config.students[0]
    jobs: dict[str, Job] = {}
    for student in config.students[1:]:
        line = line_of(config, student, student.seeds[0])
        text = f"text of {line.config.shards.directory}"
        if text not in jobs:
            needed = "teacher" if line.config.vocabulary.method == "map" else "shards"
            jobs[text] = Job(partial(_write, line), (needed,), _LAST)
    for task in config.tasks:
        work = partial(compare, config, only=[teacher.name], tasks=[task.name])
        jobs[f"{teacher.name}: {task.name}"] = Job(work, ("teacher",), _TEXT, True)
    told = tuple(f"{teacher.name}: {task.name}" for task in config.tasks)
    for student, seed in _in_turn(config):
        if student is teacher:
            continue
        line = line_of(config, student, seed)
        after = ["teacher", f"text of {line.config.shards.directory}"]
        after += told if student.soft or student.words else ()
        after += [f"{student.like}, seed {seed}"] if student.like else []
        work = partial(compare, config, only=[student.name], seeds=[seed])
        jobs[f"{student.name}, seed {seed}"] = Job(work, tuple(after), _TEXT, True)
    return jobs


def _in_turn(config: CompareConfig) -> list[tuple[ComparedStudent, int]]:
    """Sort rows: by seed, but those of one seed after the last row of several come at the end."""
    several = [k for k, s in enumerate(config.students) if len(s.seeds) > 1]
    last = max(several, default=len(config.students))
    late = {s.name for k, s in enumerate(config.students) if k > last}
    return sorted(rows_of(config), key=lambda row: row[0].name in late)


def _stage(work: Callable[[Line], None], name: str, processes: int = 0) -> Callable[[], None]:
    more = [f"shards.processes={processes}"] if processes else []
    config = load_config(Path(f"train/configs/{name}.toml"), more)
    return partial(work, Line(config))


def _write(line: Line) -> None:
    vocabulary(line)
    shards(line)


def _needed(jobs: dict[str, Job], name: str) -> dict[str, Job]:
    if name not in jobs:
        raise ConfigError([f"--only {name}: no such job; there are {', '.join(jobs)}"])
    wanted = {name}
    while more := {d for n in wanted for d in jobs[n].after} - wanted:
        wanted |= more
    return {n: job for n, job in jobs.items() if n in wanted}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the programme; return 1 if a job failed or was stopped."""
    parser = argparse.ArgumentParser(prog="python -m train.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after them; 0: never")
    parser.add_argument("--rows", type=int, default=8, help="rows of the comparison at once")
    parser.add_argument("--only", default="", help="a job, and those that it waits for")
    parser.add_argument("--logs", type=Path, default=Path("runs/log"))
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    jobs = programme(max(1, len(os.sched_getaffinity(0)) - 1))
    if arguments.only:
        jobs = _needed(jobs, arguments.only)
    found = run_jobs(jobs, arguments.logs, at_once=arguments.rows, seconds=60 * arguments.minutes)
    for name, state in found.items():
        if state != "done":
            print(f"{state}: {name}", file=sys.stderr)
    return int(set(found.values()) != {"done"})


if __name__ == "__main__":
    raise SystemExit(main())
