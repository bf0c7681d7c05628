"""A progress bar on a terminal's standard error, without a library."""

import sys
import time
from types import TracebackType
from typing import TextIO

_EVERY = 0.2  # seconds between drawings
_WIDTH = 30


class Progress:
    """Count items and draw how far it is; silent unless shown on a terminal."""

    def __init__(
        self, name: str, total: int | None, *, shown: bool, stream: TextIO | None = None
    ) -> None:
        """Name the work; `total` is None for a stream of unknown length."""
        self._name, self._total = name, total
        self._stream = stream or sys.stderr
        # None: a process without standard error
        self._shown = shown and self._stream is not None and self._stream.isatty()
        self._done = 0
        self._started = self._drawn = time.monotonic()

    def __enter__(self) -> "Progress":
        """Start counting."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Draw the end and leave the line."""
        if self._shown and self._done:
            self._draw()
            self._stream.write("\n")

    def add(self, count: int) -> None:
        """Note that `count` more items are done."""
        self._done += count
        if self._shown and time.monotonic() - self._drawn > _EVERY:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        rate = self._done / max(self._drawn - self._started, 1e-9)
        if self._total:
            filled = _WIDTH * self._done // self._total
            part = f"[{'#' * filled}{' ' * (_WIDTH - filled)}] {self._done}/{self._total}"
        else:
            part = str(self._done)
        self._stream.write(f"\r{self._name} {part} {rate:.0f}/s")
        self._stream.flush()
