"""The table and the picture of a comparison of students."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from .results import row, rule

Columns = Mapping[str, tuple[str, str]]  # task -> (heading, score)


def scores_of(found: Mapping[str, Any], task: str, score: str) -> list[float]:
    """Return a student's score on a task, seed by seed."""
    cells = (seed["tasks"].get(task) for seed in found["seeds"].values())
    return [float(c[score]) for c in cells if c is not None]


def kept_shares(
    results: Mapping[str, Any], name: str, teacher: str, columns: Columns
) -> list[float]:
    """Return for each seed the mean over tasks of a student's score in the teacher's (its mean).

    Only seeds that have every task; [] if there are none. A task on which the teacher has 0 or less
    tells nothing of what is kept, and is left out.
    """
    if teacher not in results:
        return []
    wanted = {t: scores_of(results[teacher], t, s) for t, (_, s) in columns.items()}
    if not all(wanted.values()):
        return []
    told = {t: fmean(values) for t, values in wanted.items() if fmean(values) > 0}
    shares = []
    for seed in results[name]["seeds"].values():
        cells = {t: seed["tasks"].get(t) for t in columns}
        if all(c is not None for c in cells.values()):
            parts = [cells[t][s] / told[t] for t, (_, s) in columns.items() if t in told]
            shares += [fmean(parts)] if parts else []
    return shares


def comparison_table(
    results: Mapping[str, Any],
    teacher: str,
    columns: Columns,
    counted: Columns,
    *,
    measures: Mapping[str, str] | None = None,
    sizes: bool = True,
) -> list[str]:
    """Write a Markdown table, a row for each of `results`; what is kept is told of `counted`.

    `measures` are held-out measures of the distillation (key -> heading), told after the tasks;
    `sizes` off leaves out what students of one shape have in common. A cell with several seeds is
    mean ± standard deviation.
    """
    measures = measures or {}
    headings = [heading for heading, _ in columns.values()]
    about = ["M parameters", "smaller", "pieces / 1,000 characters", "ms"] if sizes else []
    heads = ["", *about, *headings, "kept, %", *measures.values()]
    lines = [row(heads), rule(len(heads))]
    for name, found in results.items():
        cells = [_cell(scores_of(found, t, s), 3) for t, (_, s) in columns.items()]
        kept = [100 * k for k in kept_shares(results, name, teacher, counted)]
        told = [_cell(_measured(found, key), 3) for key in measures]
        size = _size(results, name, teacher) if sizes else []
        lines.append(row([name, *size, *cells, _cell(kept, 1), *told]))
    return lines


def _measured(found: Mapping[str, Any], key: str) -> list[float]:
    """Return a held-out measure of a student's distillation, seed by seed."""
    measured = (seed.get("distil", {}) for seed in found["seeds"].values())
    return [float(m[key]) for m in measured if key in m]


def _size(results: Mapping[str, Any], name: str, teacher: str) -> list[str]:
    facts = results[name]["facts"]
    times = ""
    if teacher in results:
        times = f"{results[teacher]['facts']['parameters'] / facts['parameters']:.1f}x"
    return [
        f"{facts['parameters'] / 1e6:.2f}",
        times,
        f"{facts['pieces_per_1000']:.0f}",
        f"{facts['ms']:.2f}" if "ms" in facts else "",
    ]


def _cell(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{fmean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def plot_comparison(results: Mapping[str, Any], teacher: str, columns: Columns, out: Path) -> None:
    """Draw the share of the teacher's score that is kept against parameters, into a PNG.

    Nothing is drawn before there is a student with every task.
    """
    shares = {
        name: [100 * k for k in kept_shares(results, name, teacher, columns)] for name in results
    }
    if not any(shares.values()):
        return
    pyplot = _pyplot()
    from matplotlib import ticker

    figure, axes = pyplot.subplots(figsize=(9, 6), layout="constrained")
    drawn = sorted((fmean(kept), name) for name, kept in shares.items() if kept)
    apart = 0.03 * max(drawn[-1][0] - drawn[0][0], 1.0)  # the height of a line of text
    lines: dict[float, float] = {}  # size -> height of the last name beside it
    for middle, name in drawn:
        size = results[name]["facts"]["parameters"] / 1e6
        bar = stdev(shares[name]) if len(shares[name]) > 1 else 0.0
        axes.errorbar(size, middle, yerr=bar, fmt="o", capsize=3)
        lines[size] = max(middle, lines.get(size, middle - apart) + apart)
        axes.annotate(
            name,
            (size, middle),
            xytext=(size * 1.04, lines[size]),
            textcoords="data",
            va="center",
            fontsize=8,
        )
    axes.set_xscale("log")
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(ticker.FuncFormatter(lambda value, _: f"{value:g}"))  # 20, not 2 x 10^1
    axes.set(
        xlabel="parameters, millions",
        ylabel="share of the teacher's score kept, %",
        title="Students of one teacher, equal budgets",
    )
    axes.margins(0.15)
    axes.grid(alpha=0.3)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def plot_decisive(results: Mapping[str, Any], columns: Columns, out: Path) -> None:
    """Draw the scores on each of `columns` beside each other, every seed a dot, into a PNG.

    Rows are students that have one of them, the largest first and of one size the best first. With
    several seeds a line spans the standard deviation either side of the mean.
    """
    scores = {
        name: [scores_of(found, t, s) for t, (_, s) in columns.items()]
        for name, found in results.items()
    }
    named = [n for n in results if any(scores[n])]
    if not named:
        return

    def place(name: str) -> tuple[float, float]:
        first = next(values for values in scores[name] if values)
        return results[name]["facts"]["parameters"], fmean(first)

    named.sort(key=place)
    sizes = sorted({place(name)[0] for name in named})
    colours = {name: f"C{sizes.index(place(name)[0]) % 10}" for name in named}
    pyplot = _pyplot()
    figure, panels = pyplot.subplots(
        1,
        len(columns),
        sharey=True,
        squeeze=False,
        figsize=(5 + 3.5 * len(columns), 1 + 0.24 * len(named)),
        layout="constrained",
    )
    for number, (axes, (heading, _)) in enumerate(zip(panels[0], columns.values(), strict=True)):
        for height, name in enumerate(named):
            values, colour = scores[name][number], colours[name]
            axes.plot(values, [height] * len(values), "o", color=colour, markersize=4, alpha=0.6)
            if len(values) > 1:
                bar = stdev(values)
                axes.errorbar(fmean(values), height, xerr=bar, fmt="|", color=colour, capsize=3)
        axes.set(title=heading)
        axes.grid(alpha=0.3)
    panels[0][0].set_yticks(range(len(named)), named, fontsize=8)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
