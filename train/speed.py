"""Measure how long packages take for the same texts, in turns: noise is noisy to all of them."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

import rubert_lite
from rubert_lite import Model
from rubert_lite.errors import RubertLiteError

from .parallel import as_command

_ROUNDS = 5


def milliseconds(models: Mapping[str, Model], texts: Sequence[str]) -> dict[str, float]:
    """Return each model's median milliseconds a text over some rounds of all texts."""
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in tqdm(range(_ROUNDS), desc="speed", unit="round", disable=None):
        for name, model in models.items():
            started = time.perf_counter()
            model.encode(texts)
            times[name].append(1000 * (time.perf_counter() - started) / len(texts))
    return {name: round(float(np.median(values)), 4) for name, values in times.items()}


def exported(checkpoint: Path, package: Path) -> Model:
    """Load a checkpoint's int8 package, on one thread; it is exported unless that is done already.

    The exporter is asked as a user would: this part of the project does not import it.
    """
    manifest, trained = package / "manifest.json", checkpoint / "training.json"
    if not manifest.is_file() or manifest.stat().st_mtime < trained.stat().st_mtime:
        words = [*as_command("export"), str(checkpoint), "--to", str(package), "--force"]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise RubertLiteError(f"{checkpoint}: cannot be exported: {done.stderr.strip()}")
    return rubert_lite.load(package, variant="int8", lanes=1)
