"""Prometheus metrics: what was asked, how it went, and how long each phase took."""

import os
from collections.abc import Mapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """The counters of one process; `text` adds up those of all workers."""

    def __init__(self) -> None:
        """Register everything in a registry of its own."""
        own = self._registry = CollectorRegistry()
        name = "rubert_lite_"
        self.requests = Counter(
            f"{name}requests", "Requests by route and status", ["route", "status"], registry=own
        )
        self.duration = Histogram(
            f"{name}request_duration_seconds",
            "Time to answer",
            ["route"],
            buckets=_SECONDS,
            registry=own,
        )
        self.phase = Histogram(
            f"{name}phase_duration_seconds",
            "Time of a phase: tokenization, queue, inference",
            ["phase"],
            buckets=_SECONDS,
            registry=own,
        )
        self.texts = Counter(f"{name}texts", "Texts of answered requests", registry=own)
        self.tokens = Counter(f"{name}tokens", "Pieces of answered requests", registry=own)
        self.batch = Histogram(
            f"{name}batch_texts", "Texts of a batch", buckets=_COUNTS, registry=own
        )
        self.reloads = Counter(f"{name}reloads", "Reloads by result", ["result"], registry=own)
        self.queue = Gauge(
            f"{name}queue_tokens",
            "Pieces that wait for a lane",
            registry=own,
            multiprocess_mode="livesum",
        )

    def phases(self, seconds: Mapping[str, float]) -> None:
        """Note the time of each phase of a request."""
        for phase, value in seconds.items():
            self.phase.labels(phase).observe(value)

    def text(self) -> tuple[bytes, str]:
        """Return the page that Prometheus reads and its type."""
        registry = self._registry
        if os.environ.get(_DIRECTORY):
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST
