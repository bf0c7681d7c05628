"""Turn results.json into the README's tables and the picture of quality, size and speed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rubert_lite.errors import InputError

from .parallel import locked
from .stage import write_whole

Results = Mapping[str, Mapping[str, Any]]

# Cell of results.json -> (heading, the measure in it); the mean of these is a system's mean.
COLUMNS = {
    "paraphrase": ("paraphrase ρ", "spearman"),
    "sentiment": ("sentiment F1", "linear"),
    "toxicity": ("toxicity AUC", "linear"),
    "reviews": ("reviews acc", "linear"),
    "ads": ("ads acc", "linear"),
    "entailment": ("entailment acc", "linear"),
    "word sense": ("word sense acc", "linear"),
    "ru-en": ("ru→en R@1", "recall@1"),
    "paraphrase retrieval": ("paraphrase R@1", "recall@1"),
}


def mean_score(found: Mapping[str, Any]) -> float | None:
    """Average a system's measures of COLUMNS; None while one is missing."""
    values = [found.get(cell, {}).get(key) for cell, (_, key) in COLUMNS.items()]
    return None if None in values else sum(values) / len(values)


def main_table(results: Results, systems: Sequence[str], reference: str = "") -> list[str]:
    """Write a Markdown table of the measures, one system a row.

    With `reference`, the last column is the share that a system keeps of its mean score.
    """
    names = [heading for heading, _ in COLUMNS.values()]
    last = ["mean", f"of {reference}"] if reference else ["mean"]
    rows = [row(["", "MB", "width", "ms", *names, *last]), rule(len(names) + 4 + len(last))]
    whole = mean_score(_of(results, reference)) if reference else None
    for system in systems:
        found = _of(results, system)
        if not found:  # not judged yet
            continue
        facts = {**found.get("properties", {}), **found.get("speed", {})}
        cells = [found.get(cell, {}).get(key) for cell, (_, key) in COLUMNS.items()]
        mean = mean_score(found)
        share = [f"{mean / whole:.1%}" if mean and whole else ""] if reference else []
        rows.append(
            row(
                [
                    system,
                    _number(facts.get("mb"), 1),
                    _number(facts.get("width"), 0),
                    _number(facts.get("ms"), 2),
                    *(_number(value, 3) for value in cells),
                    _number(mean, 3),
                    *share,
                ]
            )
        )
    return rows


def neighbour_table(results: Results, systems: Sequence[str]) -> list[str]:
    """Write a Markdown table of the 3-NN measures and of recall@10."""
    cells = {c: h for c, (h, key) in COLUMNS.items() if key == "linear"}
    far = {c: h.replace("R@1", "R@10") for c, (h, key) in COLUMNS.items() if key == "recall@1"}
    rows = [row(["3-NN", *cells.values(), *far.values()]), rule(len(cells) + len(far) + 1)]
    for system in systems:
        found = _of(results, system)
        values = [found.get(c, {}).get("knn") for c in cells]
        values += [found.get(c, {}).get("recall@10") for c in far]
        rows.append(row([system, *(_number(v, 3) for v in values)]))
    return rows


def detail_table(results: Results, systems: Sequence[str], cell: str, kind: str) -> list[str]:
    """Write recall@1 by length of the query, or with changed queries, one system a row."""
    names = list(
        dict.fromkeys(n for s in systems for n in _of(results, s).get(cell, {}).get(kind, {}))
    )
    rows = [row([kind, *names]), rule(len(names) + 1)]
    for system in systems:
        found = _of(results, system).get(cell, {}).get(kind, {})
        values = [found.get(n, {}).get("recall@1") for n in names]
        rows.append(row([system, *(_number(v, 3) for v in values)]))
    return rows


def recall_table(results: Results, systems: Sequence[str], cell: str) -> list[str]:
    """Write a Markdown table of recall@1 and @10 of one retrieval, one system a row.

    Where some were judged beside TF-IDF, too, two columns for each kind of its terms follow.
    """
    cells = [_of(results, s).get(cell, {}) for s in systems]
    ways = dict.fromkeys(way for c in cells for way in c if way.startswith("beside "))
    heads = [f"{way}: R@{k}".removeprefix(": ") for way in ("", *ways) for k in (1, 10)]
    rows = [row([cell, *heads]), rule(len(heads) + 1)]
    for system, found in zip(systems, cells, strict=True):
        told = [found, *(found.get(way, {}) for way in ways)]
        values = [scores.get(f"recall@{k}") for scores in told for k in (1, 10)]
        rows.append(row([system, *(_number(v, 3) for v in values)]))
    return rows


def _of(results: Results, system: str) -> Mapping[str, Any]:
    if system not in results:
        raise InputError(f"results.json has no system {system!r}: it has {', '.join(results)}")
    return results[system]


def row(cells: Sequence[str]) -> str:
    """Write a row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def rule(count: int) -> str:
    """Write the line below the heading of a Markdown table."""
    return "|" + " --- |" * count


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def read_results(path: Path) -> dict[str, Any]:
    """Return what a file of results holds: nothing before its first cell."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return found


@contextmanager
def changed_results(path: Path) -> Iterator[dict[str, Any]]:
    """Read results to be changed and write them after; other processes wait with theirs."""
    with locked(path):
        results = read_results(path)
        yield results
        write_json(path, results)


def write_json(path: Path, results: Mapping[str, Any]) -> None:
    """Write results so that a reader never sees half of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, ensure_ascii=False, indent=1)
    write_whole(path, f"{text}\n".encode())


def insert(path: Path, name: str, lines: Sequence[str]) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->` in a text file."""
    text = path.read_text(encoding="utf-8")
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if start not in text or end not in text:
        raise InputError(f"{path}: no lines {start.strip()} and {end}: where the table goes")
    before, rest = text.split(start, 1)
    after = rest.split(end, 1)[1]
    write_whole(path, (before + start + "\n".join(lines) + "\n" + end + after).encode())


_POINTS = 72  # an inch
_LABEL = 115, 11  # points, width and height of a label


def plot_plane(results: Results, lines: Mapping[str, Sequence[str]], out: Path) -> None:
    """Draw mean score against time a text, with areas as megabytes, into a PNG.

    `lines` are systems that belong together, such as vocabularies of one shape: joined, one colour.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 6), layout="constrained")
    labels: dict[str, tuple[float, float]] = {}  # text -> its point
    for number, (line, systems) in enumerate(lines.items()):
        points = [point for system in systems if (point := _point(results, system))]
        points.sort()
        colour = f"C{number}"
        axes.plot(
            [p[0] for p in points],
            [p[1] for p in points],
            color=colour,
            lw=1,
            alpha=0.6,
            label=line,
        )
        for ms, score, megabytes, system in points:
            axes.scatter(
                ms, score, s=40 * megabytes, alpha=0.4, color=colour, edgecolors="black", lw=0.5
            )
            labels[f"{system} ({megabytes:.1f} MB)"] = ms, score
    axes.set(
        xlabel="milliseconds a text, one thread",
        ylabel="mean score",
        title="Quality, speed and size (area: megabytes)",
    )
    axes.legend(fontsize=8, loc="upper right")
    axes.margins(0.2)
    axes.grid(alpha=0.3)
    figure.canvas.draw()  # the place of a point on the picture is known only now
    taken: list[tuple[float, float]] = []
    for label, at in sorted(labels.items(), key=lambda item: -item[1][1]):
        x, y = axes.transData.transform(at) * _POINTS / figure.dpi
        below = 5.0
        while any(abs(x - a) < _LABEL[0] and abs(y + below - b) < _LABEL[1] for a, b in taken):
            below -= 3
        taken.append((x, y + below))
        place = (7, below)
        axes.annotate(label, at, xytext=place, textcoords="offset points", fontsize=8)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def _point(results: Results, system: str) -> tuple[float, float, float, str] | None:
    """Return milliseconds, mean score, megabytes and name; None while one is missing."""
    found = _of(results, system)
    score, ms = mean_score(found), found.get("speed", {}).get("ms")
    if score is None or ms is None:
        return None
    return ms, score, found["properties"].get("mb", 1.0), system
