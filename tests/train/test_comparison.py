"""The table and the picture of a comparison."""

import pytest

from train.comparison import comparison_table, kept_shares, plot_comparison, plot_decisive


def row(parameters, *seeds):
    cells = {str(i): {"tasks": {t: {"s": v} for t, v in s.items()}} for i, s in enumerate(seeds)}
    return {"facts": {"parameters": parameters, "pieces_per_1000": 200}, "seeds": cells}


def test_the_table_tells_means_spreads_and_shares(tmp_path):
    results = {
        "T": row(10_000_000, {"a": 0.8, "b": 0.5}),
        "s": row(1_000_000, {"a": 0.6, "b": 0.5}, {"a": 0.4, "b": 0.5}),
        "part": row(1_000_000, {"a": 0.6}),
    }
    columns = {"a": ("A", "s"), "b": ("B", "s")}
    assert kept_shares(results, "s", "T", columns) == pytest.approx([0.875, 0.75])
    assert kept_shares(results, "part", "T", columns) == []
    table = comparison_table(results, "T", columns, columns)
    assert table[0].startswith("|  | M parameters | smaller |")
    assert table[2] == "| T | 10.00 | 1.0x | 200 |  | 0.800 | 0.500 | 100.0 |"
    assert table[3] == (
        "| s | 1.00 | 10.0x | 200 |  | 0.500 ± 0.141 | 0.500 ± 0.000 | 81.2 ± 8.8 |"
    )
    assert table[4] == "| part | 1.00 | 10.0x | 200 |  | 0.600 |  |  |"
    told = comparison_table(results, "T", columns, {"a": columns["a"]})
    assert [line.split(" | ")[-1] for line in told[2:]] == ["100.0 |", "62.5 ± 17.7 |", "75.0 |"]
    results["s"]["seeds"]["0"]["distil"] = {"mlm": 4.5}
    told = comparison_table(results, "T", columns, columns, measures={"mlm": "LM"}, sizes=False)
    assert told[0] == "|  | A | B | kept, % | LM |"
    assert told[3] == "| s | 0.500 ± 0.141 | 0.500 ± 0.000 | 81.2 ± 8.8 | 4.500 |"
    assert told[4] == "| part | 0.600 |  |  |  |"
    plot_comparison(results, "T", columns, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_decisive_tasks_are_drawn_whatever_is_missing(tmp_path):
    columns = {"a": ("A", "s"), "b": ("B", "s")}
    plot_decisive({"none": row(1_000_000)}, columns, tmp_path / "p.png")
    assert not (tmp_path / "p.png").exists()
    results = {
        "T": row(10_000_000, {"a": 0.8}),
        "s": row(1_000_000, {"a": 0.6, "b": 0.5}, {"b": 0.4}),
        "none": row(1_000_000),
    }
    plot_decisive(results, columns, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 1000
