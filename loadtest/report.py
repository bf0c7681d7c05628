"""From samples to a table, a verdict, plots and a page."""

import csv
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from plan import Limit, Profile

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402 - after the choice of the backend


class Sample(NamedTuple):
    """A request; times in seconds since the start, phases in milliseconds as the server says."""

    stage: str
    kind: str
    due: float  # when it should have started
    started: float
    ended: float
    status: int  # 0: no answer
    queue: float
    inference: float
    total: float


Row = dict[str, Any]
_COLUMNS = (
    "stage",
    "kind",
    "sent",
    "offered",
    "goodput",
    "p50",
    "p95",
    "p99",
    "server p50",
    "lag p99",
    "refused",
    "429 p99",
    "failures",
)
_PROMISES = (25, 50, 100, 250)  # ms that 99 of 100 requests keep: rates at equal p99


def read_samples(path: Path) -> list[Sample]:
    """Read samples.csv."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Sample(
                r["stage"],
                r["kind"],
                *(float(r[k]) for k in ("due", "started", "ended")),
                int(r["status"]),
                *(float(r[k]) for k in ("queue", "inference", "total")),
            )
            for r in csv.DictReader(file)
        ]


def summarize(samples: Sequence[Sample], profile: Profile) -> list[Row]:
    """Return a row for each stage and kind, and for each stage as a whole (kind "")."""
    rows = []
    for stage in profile.stages:
        inside = [s for s in samples if s.stage == stage.name]
        for kind in ("", *profile.mix):
            chosen = [s for s in inside if kind in ("", s.kind)]
            rows.append(_row(stage.name, kind, chosen, stage.seconds))
    return rows


def _row(stage: str, kind: str, samples: Sequence[Sample], seconds: float) -> Row:
    answered = [s for s in samples if s.status == 200]
    times = np.array([1000 * (s.ended - s.due) for s in answered]) if answered else np.array([0.0])
    count = max(len(samples), 1)
    refused = [1000 * (s.ended - s.due) for s in samples if s.status == 429]
    lags = [1000 * (s.started - s.due) for s in samples] or [0.0]
    return {
        "stage": stage,
        "kind": kind,
        "sent": len(samples),
        "offered": len(samples) / seconds,
        "goodput": len(answered) / seconds,
        "p50": float(np.percentile(times, 50)),
        "p95": float(np.percentile(times, 95)),
        "p99": float(np.percentile(times, 99)),
        "server p50": float(np.median([s.total for s in answered])) if answered else 0.0,
        "lag p99": float(np.percentile(lags, 99)),  # the generator's own, inside the latencies
        "refused": len(refused) / count,
        "429 p99": float(np.percentile(refused, 99)) if refused else 0.0,
        "failures": sum(s.status not in (200, 429) for s in samples) / count,
    }


def judge(
    table: Sequence[Row], profile: Profile, *, knee: float = 0.0, growth: float | None = None
) -> list[str]:
    """Name every limit that was not kept; `growth` is that of the server's memory."""
    found = {(row["stage"], row["kind"]): row for row in table}
    breaches = []
    for limit in profile.limits:
        row = found[limit.stage, limit.kind]
        breaches += _breaches(limit, row, knee)
    if profile.memory_growth is not None:
        if growth is None:
            breaches.append("memory: not measured: LOADTEST_PID names the server's process")
        elif growth > profile.memory_growth:
            breaches.append(f"memory: grew by {growth:.1%}, at most {profile.memory_growth:.1%}")
    return breaches


def _breaches(limit: Limit, row: Row, knee: float) -> list[str]:
    where = f"{limit.stage} {limit.kind or 'all'}"
    told = []
    most: dict[str, tuple[float | None, float]] = {
        "p50": (limit.p50, row["p50"]),
        "p95": (limit.p95, row["p95"]),
        "p99": (limit.p99, row["p99"]),
        "p99 to p50": (limit.p99_to_p50, row["p99"] / max(row["p50"], 1e-9)),
        "429 p99": (limit.refused_p99, row["429 p99"]),
        "failures": (limit.failures, row["failures"]),
        "refused": (limit.refused, row["refused"]),
    }
    for name, (limited, value) in most.items():
        if limited is not None and value > limited:
            told.append(f"{where}: {name} {value:.4g}, at most {limited:g}")
    least = [limit.goodput]
    if limit.goodput_knees is not None:
        least.append(limit.goodput_knees * knee)
    for rate in least:
        if rate is not None and row["goodput"] < rate:
            told.append(f"{where}: goodput {row['goodput']:.4g}/s, at least {rate:.4g}/s")
    if not row["sent"]:
        told.append(f"{where}: no requests were sent")
    elif not row["goodput"]:  # its latencies are those of nothing
        told.append(f"{where}: no request was answered")
    return told


def knee(
    samples: Sequence[Sample], *, width: float = 2.0, kept: float = 0.98, within: float = 0.25
) -> float:
    """Return the highest goodput of a stretch of `width` seconds that kept up with its arrivals.

    That is: a share `kept` of them was answered within `within` seconds of the intended start.
    """
    if not samples:
        return 0.0
    stretch = np.array([int(s.due // width) for s in samples])
    good = [s.status == 200 and s.ended - s.due < within for s in samples]
    sent, answered = np.bincount(stretch), np.bincount(stretch, weights=good)
    enough = (sent > 0) & (answered >= kept * sent)
    return float(answered[enough].max(initial=0.0)) / width


def text_table(table: Sequence[Row]) -> str:
    """Write the rows for a terminal."""
    cells = [list(_COLUMNS)]
    for row in table:
        cells.append([_cell(row[c]) if c != "kind" else row[c] or "all" for c in _COLUMNS])
    widths = [max(len(line[i]) for line in cells) for i in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells
    )


def _cell(value: Any) -> str:
    return (
        f"{value:.3g}"
        if isinstance(value, float) and value < 100
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )


def write_report(
    samples: Sequence[Sample],
    table: Sequence[Row],
    breaches: Sequence[str],
    profile: Profile,
    out: Path,
) -> str:
    """Write summary.json, latency.png, histogram.png and report.html; return the table as text."""
    _plot_time(samples, profile, out / "latency.png")
    _plot_histogram(samples, out / "histogram.png")
    data: dict[str, Any] = {
        "profile": profile.name,
        "knee": knee(samples),
        "rate at p99": {f"{ms} ms": knee(samples, kept=0.99, within=ms / 1000) for ms in _PROMISES},
        "table": list(table),
        "breaches": list(breaches),
    }
    (out / "summary.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    verdict = "all limits kept" if not breaches else "BREACHED: " + "; ".join(breaches)
    text = text_table(table)
    page = (
        f"<!doctype html><meta charset=utf-8><title>{profile.name}</title>"
        f"<h1>Load test: {html.escape(profile.name)}</h1><p>{html.escape(verdict)}</p>"
        f"<pre>{html.escape(text)}</pre>"
        "<img src=latency.png alt=latency><img src=histogram.png alt=histogram>"
    )
    (out / "report.html").write_text(page, encoding="utf-8")
    rates = ", ".join(f"{rate:.0f}/s at {ms}" for ms, rate in data["rate at p99"].items())
    return f"{text}\nknee: {data['knee']:.0f} requests/s; p99 kept: {rates}\n{verdict}"


def _plot_time(samples: Sequence[Sample], profile: Profile, path: Path) -> None:
    figure, (top, bottom) = pyplot.subplots(2, 1, figsize=(9, 6), sharex=True, layout="constrained")
    good = [s for s in samples if s.status == 200]
    top.scatter(
        [s.due for s in good],
        [1000 * (s.ended - s.due) for s in good],
        s=2,
        alpha=0.3,
        linewidths=0,
    )
    top.set(yscale="log", ylabel="ms from the intended start", title=f"Load test {profile.name}")
    edges = np.arange(0, profile.seconds + 1)
    for label, chosen in (
        ("arrivals", list(samples)),
        ("answers", good),
        ("429", [s for s in samples if s.status == 429]),
    ):
        counts, _ = np.histogram([s.due for s in chosen], edges)
        bottom.plot(edges[:-1], counts, label=label)
    bottom.set(xlabel="seconds", ylabel="requests a second")
    bottom.legend()
    second = 0.0
    for stage in profile.stages:
        for axes in (top, bottom):
            axes.axvline(second, color="grey", linewidth=0.5)
        top.annotate(
            stage.name,
            (second, 0.99),
            xycoords=("data", "axes fraction"),
            fontsize=7,
            va="top",
            rotation=90,
        )
        second += stage.seconds
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _plot_histogram(samples: Sequence[Sample], path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
    bins = np.geomspace(0.1, 10_000, 120)
    for stage in dict.fromkeys(s.stage for s in samples if s.stage):
        times = [1000 * (s.ended - s.due) for s in samples if s.stage == stage and s.status == 200]
        axes.hist(times, bins, histtype="step", density=True, label=stage)
    axes.set(xscale="log", xlabel="ms from the intended start", ylabel="share")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
