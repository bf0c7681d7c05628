"""All that the released models and the comparison need of a GPU, in one go of some ten minutes.

    python -m train.gpu --minutes 12                # in a checkout, with `data` and runs/minilm

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

from .compare import compare
from .compared import CompareConfig, line_of, load_comparison, rows_of
from .config import load_config
from .folders import Line
from .graph import Job, run_jobs
from .line_models import train_sentence, train_student
from .line_text import corpus, shards, vocabulary
from .line_vectors import items, pairs, vectors

TEACHER, SENTENCE = "teacher-12x512", "sentence-12x512"
STUDENTS = ("distil-16k", "distil-5k")
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
        "pairs": Job(_stage(pairs, SENTENCE), nice=_TEXT),
        "vectors": Job(_stage(vectors, SENTENCE), ("pairs", "vocabulary"), _TEXT),
        "items": Job(_stage(items, SENTENCE), ("pairs", "vocabulary"), _TEXT),
        "sentence teacher": Job(
            _stage(train_sentence, SENTENCE), ("teacher", "vectors", "items"), first
        ),
        "plain pairs": Job(_stage(pairs, STUDENTS[0]), ("corpus",), _TEXT),
        "plain vectors": Job(
            _stage(vectors, STUDENTS[0]), ("sentence teacher", "plain pairs"), first
        ),
    }
    for name in STUDENTS:
        jobs |= {
            f"{name} vocabulary": Job(_stage(vocabulary, name), ("corpus",), _TEXT),
            f"{name} shards": Job(_stage(shards, name, 4), (f"{name} vocabulary",), _TEXT),
            f"{name} items": Job(_stage(items, name), ("plain pairs", f"{name} vocabulary"), _TEXT),
            f"{name} distil": Job(
                _stage(train_student, name), ("sentence teacher", f"{name} shards")
            ),
            name: Job(
                _stage(train_sentence, name),
                ("plain vectors", f"{name} items", f"{name} distil"),
                first,
            ),
        }
    return jobs | _compared(load_comparison(Path(COMPARISON)))


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
        jobs[f"{teacher.name}: {task.name}"] = Job(work, ("sentence teacher",), _TEXT, True)
    told = tuple(f"{teacher.name}: {task.name}" for task in config.tasks)
    for student, seed in rows_of(config):
        if student is teacher:
            continue
        line = line_of(config, student, seed)
        after = ["sentence teacher", f"text of {line.config.shards.directory}"]
        after += told if student.soft or student.words else ()
        after += [f"{student.like}, seed {seed}"] if student.like else []
        work = partial(compare, config, only=[student.name], seeds=[seed])
        jobs[f"{student.name}, seed {seed}"] = Job(work, tuple(after), _TEXT, True)
    return jobs


def _stage(work: Callable[[Line], None], name: str, processes: int = 0) -> Callable[[], None]:
    more = [f"shards.processes={processes}"] if processes else []
    config = load_config(Path(f"train/configs/{name}.toml"), more)
    return partial(work, Line(config))


def _write(line: Line) -> None:
    vocabulary(line)
    shards(line)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the programme; return 1 if a job failed or was stopped."""
    parser = argparse.ArgumentParser(prog="python -m train.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after them; 0: never")
    parser.add_argument("--rows", type=int, default=8, help="rows of the comparison at once")
    parser.add_argument("--logs", type=Path, default=Path("runs/log"))
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    jobs = programme(max(1, len(os.sched_getaffinity(0)) - 1))
    found = run_jobs(jobs, arguments.logs, at_once=arguments.rows, seconds=60 * arguments.minutes)
    for name, state in found.items():
        if state != "done":
            print(f"{state}: {name}", file=sys.stderr)
    return int(set(found.values()) != {"done"})


if __name__ == "__main__":
    raise SystemExit(main())
