"""One process that serves: uvicorn on a given socket, our own signals."""

import asyncio
import contextlib
import errno
import gc
import json
import logging
import math
import os
import signal
import socket
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import uvicorn

from rubert_lite.errors import RubertLiteError

from .app import allow_origins, create_app
from .connection import bounded
from .gate import Gate, Keys
from .loading import open_model
from .service import Service
from .settings import Settings
from .tracing import Traced, open_tracing

logger = logging.getLogger(__name__)

_BACKLOG = 2048


class JsonLines(logging.Formatter):
    """A record as a line of JSON; texts of users are in none."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        values: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        for key in ("request_id", "ms"):
            if hasattr(record, key):
                values[key] = getattr(record, key)
        if record.exc_info:
            values["error"] = self.formatException(record.exc_info)
        return json.dumps(values, ensure_ascii=False)


def configure_logging(settings: Settings) -> None:
    """Send everything to standard error as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)


def bind(settings: Settings, *, shared: bool = False) -> socket.socket:
    """Return a socket on the port, which may be `shared` with others; RubertLiteError if taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((settings.host, settings.port))
    except OSError as error:
        sock.close()
        raise _unusable(settings, error) from error
    sock.set_inheritable(True)
    return sock


def _unusable(settings: Settings, error: OSError) -> RubertLiteError:
    of_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
    remedy = "choose another --port" if of_port else "expected an address of this machine as --host"
    return RubertLiteError(
        f"{settings.host}:{settings.port}: cannot listen there ({error.strerror}): {remedy}"
    )


def write_port(path: Path, port: int) -> None:
    """Write the number of the port; RubertLiteError where that is not possible."""
    try:
        path.write_text(f"{port}\n", encoding="ascii")
    except OSError as error:
        raise RubertLiteError(f"{path}: the port cannot be written ({error.strerror})") from error


@contextlib.contextmanager
def hold_hangups() -> Iterator[None]:
    """Let SIGHUP wait until somebody can answer it: it would end a process that still starts.

    Processes that are started meanwhile let it wait, too.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: ours drain before it stops."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def run(settings: Settings, sock: socket.socket, parent: Connection | None = None) -> None:
    """Serve until SIGTERM, SIGINT, or the end of `parent`; SIGHUP loads model and keys anew."""
    tracing = None
    if settings.otlp_endpoint:  # complains before the model is loaded
        tracing = open_tracing(settings.otlp_endpoint, settings.model)
    app = create_app(open_model(settings), settings)
    outside = allow_origins(app, settings)
    if tracing is not None:
        outside = Traced(outside, tracing[0])
    config = uvicorn.Config(
        outside,
        log_config=None,
        access_log=False,
        lifespan="off",
        backlog=_BACKLOG,
        date_header=False,
        server_header=False,
        proxy_headers=False,
        http=bounded(settings.body_timeout_seconds),
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_seconds),
        ws="none",
    )
    server = _Server(config)
    config.load()
    gc.collect()
    gc.freeze()  # what is loaded stays; to walk through it again and again cost p99 a third
    try:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_serve(server, sock, app, parent))
    finally:
        app.service.close()
        if tracing is not None:
            tracing[1]()  # sends what is left


async def _serve(
    server: uvicorn.Server,
    sock: socket.socket,
    app: Gate,
    parent: Connection | None,
) -> None:
    loop = asyncio.get_running_loop()
    service, keys = app.service, app.keys
    # A task that nobody holds may vanish.
    stopping: list[asyncio.Task[None]] = []
    reloads: set[asyncio.Task[None]] = set()

    def stop() -> None:
        if not stopping:
            stopping.append(loop.create_task(_drain(server, service)))

    def reload() -> None:
        task = loop.create_task(_reload(service, keys))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGINT, stop)
    loop.add_signal_handler(signal.SIGHUP, reload)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # see hold_hangups
    if parent is not None:
        # Readable when the other end is closed: the parent is gone, however it ended.
        loop.add_reader(parent.fileno(), stop)
    try:
        sock.listen(_BACKLOG)  # from here on the kernel keeps connections for us
    except OSError as error:  # another process was bound as well, and listens first
        raise _unusable(service.settings, error) from error
    host, port = sock.getsockname()[:2]
    if service.settings.port_file is not None:
        write_port(service.settings.port_file, port)
    logger.info("listening on http://%s:%d", host, port)
    await server.serve(sockets=[sock])


async def _drain(server: uvicorn.Server, service: Service) -> None:
    """Say "unready" and keep answering for a while, then close and finish."""
    if service.draining:
        return
    service.draining = True
    logger.info("draining for %g s", service.settings.drain_seconds)
    await asyncio.sleep(service.settings.drain_seconds)
    server.should_exit = True


async def _reload(service: Service, keys: Keys) -> None:
    try:
        async with service.reloading:  # else what was read first could be used last
            digests = keys.read()
            await asyncio.to_thread(service.reload)
            keys.use(digests)  # both or neither
    except RubertLiteError as error:
        logger.error("reload refused, the old model and keys stay: %s", error)
    except Exception:
        logger.exception("reload failed, the old model and keys stay")
    else:
        logger.info("reloaded %s", service.settings.model)


def ignore_interrupts() -> None:
    """Leave Ctrl-C to the parent, which passes it on as SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setpgid(0, 0)
