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
from bench_report import plot, publish, table
from bench_work import Work, make_work, usable_cpus
from tokenizers import Tokenizer
from tqdm import tqdm

_HERE = Path(__file__).parent


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


def measure(
    folder: Path,
    out: Path,
    engines: Sequence[Engine],
    pythons: Sequence[str],
    works: Sequence[Work],
) -> dict[str, Any]:
    """Run workloads on one model directory."""
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
    command = {"file": str(path), "each": work.each}
    times: dict[str, list[float]] = {p.engine.label: [] for p in running}  # ms a text
    rounds: dict[str, list[float]] = {p.engine.label: [] for p in running}
    for number in tqdm(range(work.rounds + 1), desc=work.name, unit="round", disable=None):
        texts = work.part(number)
        path.write_text(json.dumps(list(texts), ensure_ascii=False), encoding="utf-8")
        for process in list(running):
            label = process.engine.label
            try:
                answer = process.ask(command)
            except RuntimeError as error:
                found["left out"][label] = str(error)
                running.remove(process)
                continue
            found["engines"][label]["peak MB"] = answer["memory"]
            if number:
                taken = [1000 * t / (1 if work.each else len(texts)) for t in answer["times"]]
                times[label] += taken
                rounds[label].append(statistics.median(taken))
    for process in running:
        label = process.engine.label
        found["engines"][label]["work"][work.name] = {
            "threads": work.threads,
            "p50 ms": float(np.percentile(times[label], 50)),
            "p99 ms": float(np.percentile(times[label], 99)),
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
    parser.add_argument(
        "--vocabulary",
        type=Path,
        help="tokenizer.json of another size; its folder names the results",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--python", action="append", default=[], help="interpreters with peers")
    parser.add_argument("--device", choices=list(ENGINES), default="cpu")
    parser.add_argument(
        "--only",
        default="",
        help="the beginning of workloads' names; the rest of the last run stays",
    )
    parser.add_argument(
        "--engines", default="", help="comma-separated beginnings of engines' names; default: all"
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="also into loadtest/results, its RESULTS.md and README.md",
    )
    parser.add_argument("--quick", action="store_true", help="a fifth of the texts")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = arguments.vocabulary.parent.name if arguments.vocabulary else arguments.package.name
    folder = make_model(arguments.package, arguments.out / name, vocabulary=arguments.vocabulary)
    pythons = [sys.executable, *arguments.python]
    device = arguments.device
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    works = [
        w for w in make_work(tokenizer, quick=arguments.quick) if w.name.startswith(arguments.only)
    ]
    if not works:
        parser.error(f"--only {arguments.only!r}: no workload begins so")
    wanted = tuple(arguments.engines.split(","))
    engines = [e for e in ENGINES[device] if e.label.startswith(wanted)]
    if not engines:
        parser.error(f"--engines {arguments.engines!r}: none begins so")
    found = measure(folder, arguments.out, engines, pythons, works)
    found["machine"] = {
        "cpu": _processor(),
        "cpus": usable_cpus(),
        "gpu": _graphics(),
        "python": platform.python_version(),
    }
    file = arguments.out / (name if device == "cpu" else f"{name}-{device}")
    if arguments.only or arguments.engines:
        _keep_others(found, file.with_suffix(".json"))
    (file.with_suffix(".json")).write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    plot(found, file.with_suffix(".png"))
    if arguments.publish:
        publish(found, file.name, BASELINES[device], _HERE.parent)
    print("\n".join(table(found, BASELINES[device])))
    for label, reason in found["left out"].items():
        print(f"left out: {label}: {reason}", file=sys.stderr)
    return 0


def _keep_others(found: dict[str, Any], path: Path) -> None:
    """Add the workloads of a former run that were not measured now; ratios are of one workload."""
    if not path.exists():
        return
    old = json.loads(path.read_text(encoding="utf-8"))
    for label, row in old["engines"].items():
        new = found["engines"].setdefault(label, row)
        new["work"] = {**row["work"], **new["work"]}
        new["peak MB"] = max(row.get("peak MB", 0), new.get("peak MB", 0))
    found["left out"] = {**old["left out"], **found["left out"]}
    order = [e.label for engines in ENGINES.values() for e in engines]
    found["engines"] = {k: found["engines"][k] for k in order if k in found["engines"]}


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
