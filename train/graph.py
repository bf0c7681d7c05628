"""Run jobs that depend on each other side by side, each in a forked process of this one.

Forked, a job begins at once: libraries are loaded already. The parent must not have used the GPU or
a tokenizer, whose threads do not survive a fork.
"""

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rubert_lite.errors import ConfigError

logger = logging.getLogger(__name__)

State = Literal["done", "failed", "not begun", "stopped"]
_PAUSE = 0.05  # seconds between two looks


@dataclass(frozen=True)
class Job:
    """A function without arguments, and what it waits for."""

    work: Callable[[], None]
    after: tuple[str, ...] = ()  # names of jobs
    nice: int = 0  # priority of its process: below 0 needs root
    counted: bool = False  # one of at most `at_once`


def run_jobs(
    jobs: Mapping[str, Job], logs: Path, *, at_once: int, seconds: float = 0.0
) -> dict[str, State]:
    """Run every job once those before it are done; return how each ended.

    Jobs begin in the order given as soon as they may, all of them at once but for the counted ones.
    What a job prints goes to `logs/NAME.log`. One that failed leaves those after it "not begun".
    After `seconds` (0: never) what still runs is killed.
    """
    unknown = [f"{n}: no job {d!r}" for n, j in jobs.items() for d in j.after if d not in jobs]
    if unknown:
        raise ConfigError(unknown)
    logs.mkdir(parents=True, exist_ok=True)
    states: dict[str, State] = {}
    running: dict[str, int] = {}  # process ids
    begun = time.monotonic()
    before = signal.signal(signal.SIGTERM, _end)
    try:
        while len(states) < len(jobs):
            _collect(running, states)
            known = len(states) + len(running)
            for name, job in jobs.items():
                if name in running or name in states:
                    continue
                if any(states.get(d) in ("failed", "not begun") for d in job.after):
                    states[name] = "not begun"
                    continue
                full = job.counted and sum(jobs[n].counted for n in running) >= at_once
                if not full and all(states.get(d) == "done" for d in job.after):
                    running[name] = _begin(job, logs / f"{name.replace('/', '-')}.log")
                    logger.info("%6.1f s  %s begins", time.monotonic() - begun, name)
            if seconds and time.monotonic() - begun > seconds:
                break
            if not running and known == len(states) < len(jobs):
                raise ConfigError([f"jobs wait for each other: {set(jobs) - set(states)}"])
            time.sleep(_PAUSE)
    finally:
        signal.signal(signal.SIGTERM, before)
        for name, process in running.items():
            with suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            states[name] = "stopped"
    return {name: states.get(name, "not begun") for name in jobs}


def _end(*_: object) -> None:
    raise KeyboardInterrupt


def _collect(running: dict[str, int], states: dict[str, State]) -> None:
    for name, process in list(running.items()):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            del running[name]
            states[name] = "failed" if status else "done"
            logger.info("%s: %s", name, states[name])


def _begin(job: Job, log: Path) -> int:
    """Fork; return the process id, which is that of its group, too."""
    process = os.fork()
    if process:
        with suppress(OSError):  # whichever of the two comes first
            os.setpgid(process, process)
        return process
    status = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        file = log.open("w", buffering=1, encoding="utf-8")
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        sys.stdout = sys.stderr = file
        if job.nice:
            os.nice(job.nice)
        job.work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
        finally:  # a full disk, too, must not let this process go on as its parent
            os._exit(status)
