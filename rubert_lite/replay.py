"""Bind a graph to buffers that stay where they are, so that a GPU replays small batches.

A small batch costs a GPU less time than its kernels cost to launch, one by one. Bound to fixed
buffers, onnxruntime's CUDA provider records the launches of a shape once (a CUDA graph) and then
starts them all at once. Only few shapes are worth it: rows are rounded up to a power of two, and
large batches run as they are.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .quiet import import_onnxruntime

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

# While one session records, a call of another that allocates memory would break the recording.
RECORDING = threading.RLock()

MOST_ROWS = 8
MOST_PIECES = 512  # of a batch: beyond, its kernels last longer than their launches
_MOST_SHAPES = 128  # of all outputs; each holds device memory of its own
_TOLERANCE = 0.02  # of the largest value: float16 sums in another order differ by less

Feeds = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class _Slot:
    """The buffers of one shape and output."""

    inputs: Mapping[str, "onnxruntime.OrtValue"]
    output: "onnxruntime.OrtValue"
    binding: Any  # onnxruntime.IOBinding
    options: "onnxruntime.RunOptions"


class Replay:
    """Small batches of one session, bound to buffers. Not for use by several threads."""

    def __init__(self, session: "onnxruntime.InferenceSession", device: str) -> None:
        """Take a session; nothing is bound before a shape is first asked for."""
        self._session = session
        self._device = device
        self._widths = {o.name: o.shape for o in session.get_outputs()}
        self._types = {o.name: o.type for o in session.get_outputs()}
        self._slots: dict[tuple[str, int, int], _Slot] = {}
        self._works, self._full = True, False

    def run(self, feeds: Feeds, output: str) -> NDArray[np.float32] | None:
        """Compute one output; None for a batch that should run as it is.

        The first run of a shape is compared with one that is not bound. Where they differ, or
        where the provider refuses, nothing is bound any more, and the log says so.
        """
        rows, length = feeds["input_ids"].shape
        padded = 1 << (rows - 1).bit_length()
        key = (output, padded, length)
        if not self._works or padded > MOST_ROWS or padded * length > MOST_PIECES:
            return None
        known = key in self._slots
        if not known and len(self._slots) >= _MOST_SHAPES:
            if not self._full:
                logger.info("%d shapes are recorded, others run as they are", _MOST_SHAPES)
            self._full = True
            return None
        filled = {name: _repeat_first(values, padded) for name, values in feeds.items()}
        try:
            if not known:
                self._slots[key] = self._bind(filled, output, number=len(self._slots) + 1)
            found = self._replay(self._slots[key], filled)
            if not known:
                self._check(self._replay(self._slots[key], filled), filled, output)
        except Exception as error:  # onnxruntime's own exceptions share no public base class
            logger.warning(
                "batches of %s: not replayed, run as they are: %s", (rows, length), error
            )
            self._works = False
            self._slots.clear()
            return None
        return found[:rows]

    def _bind(self, feeds: Feeds, output: str, *, number: int) -> _Slot:
        onnxruntime = import_onnxruntime()
        sizes = dict(zip(("batch", "length"), feeds["input_ids"].shape, strict=True))
        shape = [sizes[d] if isinstance(d, str) else d for d in self._widths[output]]
        if self._types[output] != "tensor(float)":
            raise TypeError(f"output {output} is {self._types[output]}, expected tensor(float)")
        make = onnxruntime.OrtValue
        inputs = {
            name: make.ortvalue_from_numpy(values, self._device) for name, values in feeds.items()
        }
        found = make.ortvalue_from_shape_and_type(shape, np.float32, self._device)
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_ortvalue_output(output, found)
        return _Slot(inputs, found, binding, run_options(number))

    def _replay(self, slot: _Slot, feeds: Feeds) -> NDArray[np.float32]:
        for name, values in feeds.items():
            slot.inputs[name].update_inplace(values)
        self._session.run_with_iobinding(slot.binding, slot.options)
        # On a CPU `numpy` is a view of the buffer, which the next run overwrites.
        result: NDArray[np.float32] = np.array(slot.output.numpy())
        return result

    def _check(self, found: NDArray[np.float32], feeds: Feeds, output: str) -> None:
        plain = self._session.run([output], dict(feeds), run_options())[0]
        difference, largest = np.abs(found - plain).max(), np.abs(plain).max()
        if not difference <= _TOLERANCE * largest:
            raise ValueError(f"they differ by {difference:.3g} of {largest:.3g}")


def run_options(graph: int = -1) -> "onnxruntime.RunOptions":
    """Make options of a run: the number of its CUDA graph, or -1 for none."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph))
    return options


def _repeat_first(values: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """Add copies of the first row: unlike zeros, it is a text that can be computed."""
    extra = rows - len(values)
    if not extra:
        return np.ascontiguousarray(values)
    return np.concatenate([values, np.repeat(values[:1], extra, axis=0)])
