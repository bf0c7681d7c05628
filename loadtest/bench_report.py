"""The table and the plot of a benchmark."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_SHOWN = "rubert_lite int8-static"  # stands for ours where there is room for one
# What the README shows of all engines: what people would use instead, and the two ends.
_IN_README = (
    _SHOWN,
    "transformers fp32",
    "sentence-transformers torch",
    "sentence-transformers ONNX int8",
    "optimum ORT fp32",
    "OpenVINO int8",
    "CTranslate2 int8",
    "fastembed",
    "12 x 768 teacher, transformers fp32",
    "static (floor)",
)


def table(found: dict[str, Any], baseline: str, shown: Sequence[str] = ()) -> list[str]:
    """Write the Markdown table: milliseconds a text, and how many times the baseline's speed.

    `shown` names the engines that get a row; default: all.
    """
    rows = found["engines"]
    names = list(dict.fromkeys(w for row in rows.values() for w in row["work"]))
    lines = [
        "| | " + " | ".join(names) + " | cold start s | peak MB | MB on disk |",
        "|" + " --- |" * (len(names) + 4),
    ]
    for label, row in rows.items():
        if shown and label not in shown:
            continue
        cells = []
        for name in names:
            work, base = row["work"].get(name), rows.get(baseline, {}).get("work", {}).get(name)
            if work is None:
                cells.append("")
                continue
            ratio = f" ({_times(base['p50 ms'] / work['p50 ms'])})" if base else ""
            tail = f", p99 {work['p99 ms']:.2f}" if "one text" in name else ""
            cells.append(f"{work['p50 ms']:.3g}{tail}{ratio}")
        facts = (row["cold start s"], row.get("peak MB", 0), row["MB"])
        cells += [f"{facts[0]:.2f}", f"{facts[1]:.0f}", f"{facts[2]:.1f}" if facts[2] else ""]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


def _times(ratio: float) -> str:
    return f"{ratio:.1f}x" if ratio >= 0.1 else f"1/{1 / ratio:.0f}"


def publish(found: dict[str, Any], name: str, baseline: str, root: Path) -> None:
    """Keep the numbers in the repository and fill the tables of loadtest/RESULTS.md.

    A model that has a table of its own there gets its plot, too; all stand in that of vocabularies.
    The README has the rows that most people would look for.
    """
    results = root / "loadtest" / "results"
    numbers = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    (results / f"bench-{name}.json").write_text(numbers, encoding="utf-8")
    report = root / "loadtest" / "RESULTS.md"
    if _insert(report, f"bench {name}", table(found, baseline)):
        plot(found, results / f"bench-{name}.png")
    _insert(root / "README.md", f"bench {name}", table(found, baseline, _IN_README))
    models = {
        path.stem.removeprefix("bench-"): json.loads(path.read_text(encoding="utf-8"))
        for path in results.glob("bench-*.json")
    }
    _insert(report, "vocabularies", vocabularies(models, baseline))


def vocabularies(models: dict[str, dict[str, Any]], baseline: str) -> list[str]:
    """Write the Markdown table of one engine's times for several vocabularies, small ones first."""
    rows = {n: m["engines"] for n, m in models.items() if _SHOWN in m["engines"]}
    names = sorted(rows, key=lambda name: float(rows[name][_SHOWN]["MB"]))
    works = list(dict.fromkeys(w for name in names for w in rows[name][_SHOWN]["work"]))
    lines = ["| | MB | " + " | ".join(works) + " |", "|" + " --- |" * (len(works) + 2)]
    for name in names:
        ours, base = rows[name][_SHOWN]["work"], rows[name].get(baseline, {}).get("work", {})
        cells = []
        for work in works:
            if work not in ours:
                cells.append("")
                continue
            mine = ours[work]["p50 ms"]
            ratio = f" ({_times(base[work]['p50 ms'] / mine)})" if work in base else ""
            cells.append(f"{mine:.3g}{ratio}")
        lines.append(f"| {name} | {rows[name][_SHOWN]['MB']:.1f} | " + " | ".join(cells) + " |")
    return lines


def _insert(document: Path, name: str, lines: list[str]) -> bool:
    """Put lines between the marks of a name; return whether there are any."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found_begin, rest = document.read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        return False
    text = "\n".join(lines)
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
    return True


def plot(found: dict[str, Any], path: Path) -> None:
    """Draw milliseconds a text of every engine and workload."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = found["engines"]
    names = list(dict.fromkeys(w for row in rows.values() for w in row["work"]))
    figure, axes = pyplot.subplots(
        1, len(names), figsize=(3.4 * len(names), 5), layout="constrained"
    )
    labels = list(rows)[::-1]
    for place, (name, axis) in enumerate(zip(names, np.atleast_1d(axes), strict=True)):
        values = [rows[label]["work"].get(name, {}).get("p50 ms", np.nan) for label in labels]
        colours = ["tab:blue" if x.startswith("rubert_lite") else "tab:gray" for x in labels]
        axis.barh(labels if place == 0 else range(len(labels)), values, color=colours)
        axis.set_xscale("log")  # from the floor to the teacher it is a thousand times
        axis.set_xlim(right=4 * np.nanmax(values))
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("ms a text (p50)", fontsize=8)
        if place:
            axis.set_yticks([])
        for y, value in enumerate(values):
            if not np.isnan(value):
                axis.annotate(f" {value:.3g}", (value, y), fontsize=7, va="center")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
