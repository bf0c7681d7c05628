"""Run a graph on batches of equal length: one session, several one-thread lanes.

On a CPU a text costs least at its exact length: no padding, no mask, no change of result by
neighbours. Lanes are threads that share one onnxruntime session (its runs are thread-safe), so
weights are in memory once. A process that was forked makes its own session and lanes: threads do
not survive a fork.
"""

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import PackageError, ProviderError, how_to_install
from .quiet import import_onnxruntime
from .replay import RECORDING, Replay, run_options

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

Device = Literal["cpu", "cuda"]
_EXTERNAL = b"\x0a\x08location"  # the key of an external data entry, as protobuf writes it
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True)
class Batch:
    """Rows of equal length, and where their texts stand."""

    indices: NDArray[np.int64]  # [rows]
    feeds: Mapping[str, NDArray[np.int64]]  # input_ids and what else the graph asks for


class Runner(Protocol):
    """What computes batches: an engine, or a model in training that is judged as it will run."""

    def run_all(
        self, batches: Iterable[Batch], output: str
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield (indices, rows) of each batch, in order."""


class Engine:
    """A graph ready to run; immutable, safe to use from many threads and after a fork."""

    def __init__(self, graph: bytes, *, device: Device = "cpu", lanes: int | None = None) -> None:
        """Load a graph; `lanes` is the number of threads, by default the CPUs this process may use.

        A GPU has one lane: it takes one batch at a time. Raises ProviderError without onnxruntime
        or the device, PackageError for an unreadable graph.
        """
        self._graph = graph
        self._device = device
        self.lanes = (lanes or usable_cpus()) if device == "cpu" else 1
        self._live = _open(graph, device, self.lanes)
        session = self._live.session
        self.metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
        self.inputs: tuple[str, ...] = tuple(i.name for i in session.get_inputs())
        # Shapes hold names where a dimension is free.
        self.outputs: Mapping[str, Sequence[int | str]] = {
            o.name: o.shape for o in session.get_outputs()
        }

    def run(self, batch: Batch, output: str) -> NDArray[np.float32]:
        """Compute one output for one batch: [rows, width]."""
        if self._device == "cpu":
            return self._compute(batch, output)
        # A CUDA graph belongs to the thread that recorded it.
        return self._here().lanes.submit(self._compute, batch, output).result()

    def _compute(self, batch: Batch, output: str) -> NDArray[np.float32]:
        live = self._here()
        if live.replay is None:
            return self._run(live, batch, output, None)
        with RECORDING:
            found = live.replay.run(batch.feeds, output)
            return self._run(live, batch, output, run_options()) if found is None else found

    def _run(
        self, live: "_Live", batch: Batch, output: str, options: "onnxruntime.RunOptions | None"
    ) -> NDArray[np.float32]:
        try:
            result: NDArray[np.float32] = live.session.run([output], dict(batch.feeds), options)[0]
        except Exception as error:  # onnxruntime's own exceptions share no public base class
            shape = batch.feeds["input_ids"].shape
            raise PackageError(f"graph: cannot compute a batch of {shape}: {error}") from error
        return result

    def run_all(
        self, batches: Iterable[Batch], output: str
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Compute batches on all lanes; pairs of (indices, rows) come in the order of `batches`."""
        batches = iter(batches)
        first = list(islice(batches, 2))
        batches = chain(first, batches)
        if self.lanes == 1 or len(first) < 2:  # another thread would only cost the way to it
            for batch in batches:
                yield batch.indices, self.run(batch, output)
            return
        lanes = self._here().lanes
        waiting: deque[tuple[NDArray[np.int64], Future[NDArray[np.float32]]]] = deque()
        try:
            for batch in batches:
                waiting.append((batch.indices, lanes.submit(self.run, batch, output)))
                # A bounded queue: enough that no lane waits, few enough that memory stays flat.
                while len(waiting) > 4 * self.lanes:
                    indices, future = waiting.popleft()
                    yield indices, future.result()
            while waiting:
                indices, future = waiting.popleft()
                yield indices, future.result()
        finally:
            for _, future in waiting:
                future.cancel()

    def _here(self) -> "_Live":
        """Return what lives in this process; after a fork, make it anew."""
        if self._live.process != os.getpid():
            if self._device != "cpu":
                raise ProviderError(
                    f"device {self._device!r} does not survive a fork: load the model in the child"
                    " process, or start it with spawn"
                )
            # No lock: one that a thread of the parent held would stay held for ever. Two threads
            # that come first at once each open a session, and the last one stays.
            self._live = _open(self._graph, self._device, self.lanes)
        return self._live


@dataclass(frozen=True)
class _Live:
    process: int
    session: "onnxruntime.InferenceSession"
    lanes: ThreadPoolExecutor
    replay: Replay | None  # on a GPU that can record its launches


def _open(graph: bytes, device: Device, lanes: int) -> _Live:
    try:
        onnxruntime = import_onnxruntime()
    except ImportError as error:
        raise ProviderError(
            f"onnxruntime is not installed: {how_to_install('cpu')} (or gpu instead of cpu)"
        ) from error
    provider = _PROVIDERS.get(device) if isinstance(device, str) else None
    if provider is None:
        raise ProviderError(f"device {device!r}: expected one of {', '.join(_PROVIDERS)}")
    if device == "cuda" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA and cuDNN as pip packages are on no loader's path
    if provider not in onnxruntime.get_available_providers():
        raise ProviderError(
            f"device {device!r}: this onnxruntime has no {provider}: pip uninstall onnxruntime;"
            f" then, {how_to_install('gpu')}"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Lanes that share an arena wait for its lock: at 16 pieces two were slower than one. One lane
    # alone is faster with it.
    options.enable_cpu_mem_arena = lanes == 1
    options.enable_mem_pattern = False  # a plan for every length would be kept for ever
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors; the provider check below says the rest
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Products of int8 overflow 16 bits on x86 CPUs without VNNI: a vector there had cosine 0.9989
    # with float32 instead of 0.9997. Those that do not take longer; on CPUs with VNNI
    # this changes nothing.
    options.add_session_config_entry("session.x64quantprecision", "1")
    # A graph given as bytes would look for external data in the current directory: a folder that
    # cannot exist refuses it.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.path.join(os.devnull, "none")
    )
    replay = None
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=[provider])
        if device == "cuda" and provider in session.get_providers():
            session, replay = _recording(session, graph, options)
    except Exception as error:  # onnxruntime's own exceptions share no public base class
        reason = (
            "its weights are in another file, expected one file" if _EXTERNAL in graph else error
        )
        raise PackageError(f"graph: onnxruntime cannot load it: {reason}") from error
    if provider not in session.get_providers():
        raise ProviderError(
            f"device {device!r}: {provider} could not start, and nothing falls back to the CPU"
            " silently: check the driver and CUDA libraries, or ask for device='cpu'"
        )
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="rubert-lite")
    return _Live(os.getpid(), session, pool, replay)


def _recording(
    plain: "onnxruntime.InferenceSession", graph: bytes, options: "onnxruntime.SessionOptions"
) -> tuple["onnxruntime.InferenceSession", Replay | None]:
    """Return a session that records CUDA graphs; the plain one if this graph cannot be recorded."""
    onnxruntime = import_onnxruntime()
    providers = [(_PROVIDERS["cuda"], {"enable_cuda_graph": "1"})]
    reason: object = "the provider could not start again"
    try:
        with RECORDING:
            session = onnxruntime.InferenceSession(graph, options, providers=providers)
        if _PROVIDERS["cuda"] in session.get_providers():  # it falls back without a word
            return session, Replay(session, "cuda")
    except Exception as error:  # such as nodes that the provider leaves to the CPU
        reason = error
    logger.info("no CUDA graphs, every batch is launched kernel by kernel: %s", reason)
    return plain, None


def usable_cpus() -> int:
    """Count the CPUs that this process may use: its affinity, bounded by a cgroup quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        count = os.cpu_count() or 1
    quota = cgroup_cpus(Path("/sys/fs/cgroup"))
    return max(1, min(count, quota) if quota else count)


def cgroup_cpus(root: Path) -> int | None:
    """Read the CPU quota of a container in whole CPUs, rounded up; None without one."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in ("max", "-1"):
        return None
    return max(1, -(-int(quota) // int(period)))
