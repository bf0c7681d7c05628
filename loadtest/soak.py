"""Ten minutes of random lengths: memory must stay flat. Writes soak.png and soak.json.

    python loadtest/soak.py [PACKAGE] [--minutes 10] [--out runs/soak]

Resident memory is read from the kernel; the first tenth of the time is for warming up. Ends with 1
when the median of the last tenth is more than 5% above the median of the second.
"""

import argparse
import json
import random
import statistics
import sys
import time
from pathlib import Path

from tqdm import tqdm

import rubert_lite

_LIMIT = 1.05
_WORDS = ("привет", "дом", "переводчица", "и", "железнодорожный", "2024", "ёж", "OK")


def resident_mb() -> float:
    """Read this process's resident memory, in 10^6 bytes."""
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * 4096 / 1e6


def random_texts(chance: random.Random) -> list[str]:
    """Return some texts: from nothing to past the model's length."""
    count = chance.choice((1, 1, 2, 8, 64, 500))
    longest = chance.choice((4, 20, 100, 600))
    return [" ".join(chance.choices(_WORDS, k=chance.randint(0, longest))) for _ in range(count)]


def plot(points: list[tuple[float, float]], out: Path) -> None:
    """Draw memory against time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    axes.plot([t / 60 for t, _ in points], [mb for _, mb in points], linewidth=0.8)
    axes.set(
        xlabel="minutes", ylabel="resident MB", title="encode of random lengths", ylim=(0, None)
    )
    axes.grid(alpha=0.3)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def main() -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", nargs="?", default="distil-16k")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path("runs/soak"))
    arguments = parser.parse_args()
    if arguments.minutes < 0.5:
        parser.error("--minutes: expected at least 0.5")
    model = rubert_lite.load(arguments.package)
    chance = random.Random(1)
    limit = 60 * arguments.minutes
    points: list[tuple[float, float]] = []
    began = time.perf_counter()
    calls = texts = 0
    bar = tqdm(total=int(limit), desc="soak", unit="s", disable=None)
    while (now := time.perf_counter() - began) < limit:
        given = random_texts(chance)
        model.encode(given)
        calls, texts = calls + 1, texts + len(given)
        points.append((now, resident_mb()))
        bar.update(int(now) - bar.n)
    bar.close()
    tenths = [[mb for t, mb in points if i <= 10 * t / limit < i + 1] for i in range(10)]
    second, last = statistics.median(tenths[1]), statistics.median(tenths[9])
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = {
        "minutes": arguments.minutes,
        "calls": calls,
        "texts": texts,
        "second tenth MB": second,
        "last tenth MB": last,
        "peak MB": max(mb for _, mb in points),
    }
    (arguments.out / "soak.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    plot(points, arguments.out / "soak.png")
    print(json.dumps(data))
    return int(last > _LIMIT * second)


if __name__ == "__main__":
    sys.exit(main())
