"""Plots that people look at instead of logs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .checkpoint import read_metrics


def plot_run(metrics: Path, out: Path) -> None:
    """Draw the losses of a run and its validation curves into a PNG."""
    records = read_metrics(metrics)
    steps = [r for r in records if "loss" in r]
    valid = [{"step": r["step"], **r["valid"]} for r in records if "valid" in r]
    if not steps:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name in [k for k in steps[0] if k not in ("step", "rate", "norm", "tokens_s")]:
        _curve(left, steps, name)
    left.set(xlabel="step", ylabel="nats", title="training losses")
    for name in [k for k in (valid[0] if valid else {}) if k != "step"]:
        share = name.startswith(("top1", "mlm_top1"))
        _curve(right, valid, name, dashed=share)
    right.set(xlabel="step", title="validation (dashed: shares)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.set_ylim(bottom=0)
        if axes.lines:
            axes.legend(fontsize=8)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def _curve(
    axes: Any, records: Sequence[Mapping[str, float]], name: str, *, dashed: bool = False
) -> None:
    points = [(r["step"], r[name]) for r in records if name in r]
    axes.plot(*zip(*points, strict=True), label=name, linestyle="--" if dashed else "-")
