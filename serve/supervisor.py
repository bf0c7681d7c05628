"""Several worker processes on one port: started by spawn, watched, restarted."""

import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import FrameType

from prometheus_client import multiprocess

from rubert_lite.errors import RubertLiteError

from .server import bind, configure_logging, hold_hangups, ignore_interrupts, run
from .settings import Settings

logger = logging.getLogger(__name__)

_METRICS = "PROMETHEUS_MULTIPROC_DIR"
_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds at least between two starts of a worker
_REFUSED = 3  # exit status of a worker that could not start


def supervise(settings: Settings) -> int:
    """Run `settings.workers` processes until SIGTERM or SIGINT; return the exit status.

    The kernel spreads new connections over the workers (SO_REUSEPORT). One that dies is replaced;
    SIGHUP is passed on. RubertLiteError if the port is taken.
    """
    bind(settings).close()  # a port that others share could be shared with them
    with bind(settings, shared=True) as reserved:  # keeps the port while workers come and go
        port = reserved.getsockname()[1]
        settings = settings.model_copy(update={"port": port})
        folder = tempfile.mkdtemp(prefix="rubert-lite-metrics-")
        os.environ[_METRICS] = folder  # read by the workers; empty at the start
        try:
            return _Supervisor(settings, folder).run()
        finally:
            del os.environ[_METRICS]
            shutil.rmtree(folder, ignore_errors=True)


@dataclass
class _Worker:
    process: BaseProcess
    lifeline: Connection  # closed when we end, which the worker notices
    started: float
    attempts: int = 0  # starts in a row that were refused


class _Supervisor:
    def __init__(self, settings: Settings, metrics: str) -> None:
        self._settings = settings
        self._metrics = metrics  # folder
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._stopping = self._hung_up = False  # what signals have asked for

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._hang_up)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # see hold_hangups
        self._workers = [self._start() for _ in range(self._settings.workers)]
        while not self._stopping:
            if not self._replace_dead():
                logger.error("no worker could start: giving up")
                return 1
            if self._hung_up:
                self._pass_on_hangup()
            time.sleep(0.2)
        for worker in self._workers:
            worker.process.terminate()
        limit = self._settings.drain_seconds + self._settings.shutdown_seconds + 5
        deadline = time.monotonic() + limit
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        return 0

    def _start(self, attempts: int = 0) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=work, args=(self._settings, theirs), name="rubert-lite-worker"
        )
        with hold_hangups():  # the worker lets one wait until it can answer
            process.start()
        theirs.close()
        return _Worker(process, ours, time.monotonic(), attempts)

    def _replace_dead(self) -> bool:
        """Start others in the place of the dead; False if every worker was refused its start."""
        if all(w.process.exitcode == _REFUSED for w in self._workers):
            return False  # a model or setting that is wrong will stay wrong
        for place, worker in enumerate(self._workers):
            pause = min(_PAUSE * 2**worker.attempts, _LONGEST_PAUSE)
            if worker.process.is_alive() or time.monotonic() - worker.started < pause:
                continue
            logger.error(
                "worker %s ended with %s: starting another",
                worker.process.pid,
                worker.process.exitcode,
            )
            worker.lifeline.close()
            if worker.process.pid is not None:  # what it had waiting waits no more
                multiprocess.mark_process_dead(  # type: ignore[no-untyped-call]
                    worker.process.pid, self._metrics
                )
            refused = worker.process.exitcode == _REFUSED
            self._workers[place] = self._start(worker.attempts + 1 if refused else 0)
        return True

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        self._hung_up = True  # passed on by the loop: never while a worker is being replaced

    def _pass_on_hangup(self) -> None:
        self._hung_up = False  # first: one that comes now is passed on, too
        for worker in self._workers:
            if worker.process.pid is not None and worker.process.is_alive():
                os.kill(worker.process.pid, signal.SIGHUP)


def work(settings: Settings, parent: Connection) -> None:
    """Be a worker: the target of a spawned process."""
    ignore_interrupts()
    configure_logging(settings)
    try:
        own: socket.socket = bind(settings, shared=True)
        run(settings, own, parent)
    except RubertLiteError as error:
        logger.error("%s", error)
        sys.exit(_REFUSED)
