"""Watch the memory of a server while it is loaded."""

import time
from pathlib import Path

import numpy as np

_CHILDREN = "/proc/{0}/task/{0}/children"


class Memory:
    """Resident megabytes of a process and its children, once a second."""

    def __init__(self, process: int) -> None:
        """Take a process number; 0 watches nothing."""
        self.process = process
        self.megabytes: list[float] = []

    def watch(self) -> None:
        """Read until killed."""
        while self.process:
            self.megabytes.append(sum(resident(p) for p in family(self.process)))
            time.sleep(1)

    @property
    def growth(self) -> float | None:
        """Share by which the last tenth is above the second; None if nothing was watched.

        The first tenth warms up: buffers and caches fill.
        """
        tenth = len(self.megabytes) // 10
        if not tenth:
            return None
        values = np.array(self.megabytes)
        first, last = values[tenth : 2 * tenth].mean(), values[-tenth:].mean()
        return float(last / max(first, 1e-9) - 1)

    @property
    def text(self) -> str:
        """What was seen, in a line."""
        values = self.megabytes
        growth = "" if self.growth is None else f", {self.growth:+.1%} after the first tenth"
        return f"memory of the server: {values[0]:.0f} to {values[-1]:.0f} MB{growth}"

    def plot(self, path: Path) -> None:
        """Draw it into a PNG."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(9, 3), layout="constrained")
        axes.plot(self.megabytes)
        axes.set(
            xlabel="seconds", ylabel="resident MB", ylim=(0, None), title="Memory of the server"
        )
        axes.grid(alpha=0.3)
        figure.savefig(path, dpi=110)
        pyplot.close(figure)


def family(process: int) -> list[int]:
    """Return a process and all its children that live."""
    found = [process]
    for parent in found:  # grows as children are found
        try:
            found += map(int, Path(_CHILDREN.format(parent)).read_text().split())
        except OSError:  # it ended
            continue
    return found


def resident(process: int) -> float:
    """Return the resident memory of a process in MB (2^20), 0 for one that ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))
