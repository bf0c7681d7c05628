"""Compute the rows of a comparison in several processes at once.

Small students do not fill the cores: on two of them, two processes of one thread each trained 1.8
times what a process of one thread did, and a process of two threads 1.45 times.
"""

import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from rubert_lite.errors import RubertLiteError

logger = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Keep other processes from a file or folder while it is read, changed and written.

    Yields whether it is this process's: False only where another has it and `wait` is off.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                yield False
                return
            logger.info("%s: another process is at it; waiting", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield True


def as_command(part: str) -> list[str]:
    """Return the command that runs a part of the project (train, export) in another process."""
    inside = (__package__ or "train").removesuffix("train")  # "rubert_lite." where installed
    # A checkout where the process happens to stand has a rubert_lite without these parts in it.
    safe = ["-P"] if inside else []
    return [sys.executable, *safe, "-m", f"{inside}{part}"]


def run_rows(command: Sequence[str], rows: Mapping[str, Sequence[str]], *, jobs: int) -> None:
    """Run `command` with the words of every row, `jobs` at a time, each with its share of threads.

    What the processes say goes to standard error. RubertLiteError names the rows that failed, after
    all have run. When this process is asked to end, they end first.
    """
    threads = str(max(1, len(os.sched_getaffinity(0)) // jobs))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    running: dict[str, subprocess.Popen[bytes]] = {}

    def run(row: str) -> str:
        logger.info("%s: begins", row)
        running[row] = subprocess.Popen([*command, *rows[row]], env=environment, stdout=sys.stderr)
        status = running[row].wait()
        logger.info("%s: %s", row, "failed" if status else "done")
        return row if status else ""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    pool = ThreadPoolExecutor(jobs)
    try:
        failed = [row for row in pool.map(run, rows) if row]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in running.values():
            child.terminate()
        signal.signal(signal.SIGTERM, before)
    if failed:
        raise RubertLiteError(f"compare: these students failed: {', '.join(failed)}")
