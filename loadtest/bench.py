"""Ours and the peers on the same machine, threads and texts: one table, one plot, raw JSON.

    python loadtest/bench.py --out runs/bench [--quick]

Every engine is a process of its own, perhaps in an environment of its own, and they take turns: A,
B, C, A, B, C, so that a noisy machine is noisy to all. Ratios are the result; milliseconds are of
this machine. Weights are random (speed does not depend on them), tokenizer and shape are those of a
package.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from bench_list import BASELINES, ENGINES, Engine
from bench_model import make_model
from bench_report import plot, table
from texts import make_texts
from tokenizers import Tokenizer
from tqdm import tqdm

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Work:
    """A column: texts, how they are given, and how often."""

    name: str
    texts: Sequence[str]
    each: bool  # one at a time
    threads: int
    rounds: int


@dataclass
class Process:
    """An engine that runs."""

    engine: Engine
    threads: int
    child: "subprocess.Popen[str]"
    complaints: IO[str]  # a file: a pipe that nobody reads would fill up
    ready: dict[str, Any] = field(default_factory=dict)
    started: float = 0.0

    @classmethod
    def start(cls, engine: Engine, python: str, folder: Path, threads: int) -> "Process":
        """Start it and wait for its first vector."""
        began = time.perf_counter()
        words = [python, str(_HERE / "bench_engines.py"), engine.kind, str(folder)]
        complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by stop()
        child = subprocess.Popen(
            [*words, str(threads), engine.option, engine.device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        process = cls(engine, threads, child, complaints)
        process.ready = process.read()
        process.started = time.perf_counter() - began
        return process

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        assert self.child.stdin is not None
        try:
            self.child.stdin.write(json.dumps(command) + "\n")
            self.child.stdin.flush()
        except OSError as error:
            raise RuntimeError(f"ended: {error}") from error
        return self.read()

    def read(self) -> dict[str, Any]:
        """Return the next answer; RuntimeError with what the engine complained of."""
        assert self.child.stdout is not None
        for line in self.child.stdout:
            if line.startswith("@"):
                found: dict[str, Any] = json.loads(line[1:])
                return found
        self.complaints.seek(0)
        said = self.complaints.read().strip().splitlines()
        raise RuntimeError(said[-1] if said else f"ended with {self.child.wait()}")

    def stop(self) -> None:
        """End it."""
        self.child.kill()
        self.child.wait()
        for stream in (self.child.stdin, self.child.stdout, self.complaints):
            if stream is not None:
                stream.close()


def make_work(tokenizer: Tokenizer, *, quick: bool) -> list[Work]:
    """Return the workloads; lengths are in pieces of `tokenizer`, specials included."""
    stream = make_texts(7)

    def exactly(pieces: int) -> str:
        text = ""
        while len(tokenizer.encode(text).ids) < pieces:
            text = f"{text} {next(stream)}".strip()
        while len(tokenizer.encode(text).ids) > pieces:
            text = text[:-1].rstrip()
        return text

    share = 5 if quick else 1
    real = [next(stream) for _ in range(20_000 // share)]
    return [
        Work("one text, 16 pieces", [exactly(16) for _ in range(200 // share)], True, 1, 5),
        Work("one text, 64 pieces", [exactly(64) for _ in range(100 // share)], True, 1, 5),
        Work("512 pieces, batch 1", [exactly(512) for _ in range(8 // min(share, 2))], True, 1, 3),
        Work("512 pieces, batch 16", [exactly(512) for _ in range(16)], False, 1, 3),
        Work(f"{len(real):,} real lengths", real, False, usable_cpus(), 3),
    ]


def usable_cpus() -> int:
    """Count the CPUs of this process."""
    return len(os.sched_getaffinity(0))


def measure(
    folder: Path, out: Path, engines: Sequence[Engine], pythons: Sequence[str], *, quick: bool
) -> dict[str, Any]:
    """Run everything on one model directory."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    works = make_work(tokenizer, quick=quick)
    path = out / "partial.json"
    found: dict[str, Any] = {"engines": {}, "left out": {}}
    homes = {e.label: home_of(e, pythons) for e in engines}
    for label, home in homes.items():
        if home is None:
            found["left out"][label] = "its package is not installed in any environment"
    for threads in sorted({w.threads for w in works}):
        running = []
        for engine in engines:
            home = homes[engine.label]
            if home is None or engine.label in found["left out"]:
                continue
            try:
                if engine.kind == "ctranslate2" and not (folder / "ctranslate2").exists():
                    Process.start(engine, home, folder, threads).stop()  # converts, once
                process = Process.start(engine, home, folder, threads)
            except RuntimeError as error:
                found["left out"][engine.label] = str(error)
                continue
            running.append(process)
            row = found["engines"].setdefault(engine.label, {"work": {}})
            row.setdefault("cold start s", process.started)
            row.setdefault("versions", process.ready["versions"])
            row["MB"] = size_of(folder, engine)
        for work in (w for w in works if w.threads == threads):
            able = [p for p in running if p.engine.label not in found["left out"]]
            _run(work, [p for p in able if p.engine.does(work.name)], found, out)
            path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")  # what there is so far
        for process in running:
            process.stop()
    return found


def _run(work: Work, running: list[Process], found: dict[str, Any], out: Path) -> None:
    path = out / "texts.json"
    path.write_text(json.dumps(list(work.texts), ensure_ascii=False), encoding="utf-8")
    command = {"file": str(path), "each": work.each}
    times: dict[str, list[float]] = {p.engine.label: [] for p in running}
    rounds: dict[str, list[float]] = {p.engine.label: [] for p in running}
    for number in tqdm(range(work.rounds + 1), desc=work.name, unit="round", disable=None):
        for process in list(running):
            label = process.engine.label
            try:
                answer = process.ask(command)
            except RuntimeError as error:
                found["left out"][label] = str(error)
                running.remove(process)
                continue
            found["engines"][label]["peak MB"] = answer["memory"]
            if number:  # the first round warms up
                times[label] += answer["times"]
                rounds[label].append(statistics.median(answer["times"]))
    for process in running:
        label = process.engine.label
        taken = np.array(times[label]) * 1000
        per_text = taken if work.each else taken / len(work.texts)
        found["engines"][label]["work"][work.name] = {
            "threads": work.threads,
            "p50 ms": float(np.percentile(per_text, 50)),
            "p99 ms": float(np.percentile(per_text, 99)),
            "spread": float(max(rounds[label]) / min(rounds[label])),
        }


def home_of(engine: Engine, pythons: Sequence[str]) -> str | None:
    """Return the first interpreter that has what an engine needs."""
    for python in pythons:
        test = (
            f"import importlib.util as u; raise SystemExit(u.find_spec({engine.needs!r}) is None)"
        )
        if not engine.needs or subprocess.run([python, "-c", test]).returncode == 0:
            return python
    return None


def size_of(folder: Path, engine: Engine) -> float:
    """Megabytes (10^6) of the files that an engine loads."""
    return sum((folder / f).stat().st_size for f in engine.files if (folder / f).exists()) / 1e6


def main() -> int:
    """Read the arguments, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--package", type=Path, default=Path("rubert_lite/models/distil-16k"))
    parser.add_argument("--vocabulary", type=Path, help="tokenizer.json of another size")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--python", action="append", default=[], help="interpreters with peers")
    parser.add_argument("--device", choices=list(ENGINES), default="cpu")
    parser.add_argument("--quick", action="store_true", help="a fifth of the texts")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = arguments.vocabulary.parent.name if arguments.vocabulary else arguments.package.name
    folder = make_model(arguments.package, arguments.out / name, vocabulary=arguments.vocabulary)
    pythons = [sys.executable, *arguments.python]
    device = arguments.device
    found = measure(folder, arguments.out, ENGINES[device], pythons, quick=arguments.quick)
    found["machine"] = {
        "cpu": _processor(),
        "cpus": usable_cpus(),
        "gpu": _graphics(),
        "python": platform.python_version(),
    }
    file = arguments.out / (name if device == "cpu" else f"{name}-{device}")
    (file.with_suffix(".json")).write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    plot(found, file.with_suffix(".png"))
    print("\n".join(table(found, BASELINES[device])))
    for label, reason in found["left out"].items():
        print(f"left out: {label}: {reason}", file=sys.stderr)
    return 0


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _graphics() -> str | None:
    words = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    sys.exit(main())
