import json
from pathlib import Path

import numpy as np
import pytest

from rubert_lite.errors import ConfigError, InputError
from train import evaluate as module
from train.baselines import hashed_tfidf, piece_shares, static_encoder, static_rows
from train.evaluate import evaluate
from train.evaluated import load_evaluation
from train.probes import probe
from train.results import COLUMNS, insert, main_table, mean_score, plot_plane
from train.tasks import Task, features, read_task
from train.vectors import VectorCache

from .toy_tasks import WORDS, encode, write_jsonl


def test_probes_find_what_the_vectors_say(classes):
    assert probe(classes, encode) == {"linear": 1.0, "knn": 1.0}
    blind = probe(classes, lambda texts: np.ones((len(texts), 4), dtype=np.float32))
    assert blind["linear"] == pytest.approx(0.5)


def test_similarity_is_the_rank_correlation_of_cosines(tmp_path):
    records = [
        {"a": "кот", "b": "кот", "grade": 1},
        {"a": "кот чай", "b": "кот", "grade": 0},
        {"a": "кот", "b": "суп", "grade": -1},
    ]
    task = Task("s", "", write_jsonl(tmp_path / "d.jsonl", records), "spearman", "a", "b", "grade")
    assert probe(task, encode)["spearman"] == pytest.approx(1.0)


def test_pairs_are_seen_as_difference_and_product(tmp_path):
    records = [{"a": "кот", "b": "пёс", "label": "x"}]
    task = Task("p", "", write_jsonl(tmp_path / "d.jsonl", records), "accuracy", "a", "b")
    assert features(read_task(task.dev, task), encode).tolist() == [[1, 1, 0, 0, 0, 0, 0, 0]]


def test_a_record_without_its_keys_is_named(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", [{"text": "кот"}])
    with pytest.raises(InputError, match=r"d.jsonl:1: no 'label': the record has text"):
        read_task(path, Task("x", path, path, "accuracy"))


def test_hashed_tfidf_fits_its_budget_and_tells_topics_apart():
    texts = ["кошка ловит мышку", "кошки ловят мышек", "варим суп из овощей", "суп с овощами"] * 9
    found = hashed_tfidf(iter(texts), budget=20_000, width=4)
    vectors = found(texts[:4])
    assert vectors.shape == (4, 4)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    assert cosines[0, 1] > cosines[0, 2] and cosines[2, 3] > cosines[1, 3]


def test_static_rows_solve_the_regression(tmp_path):
    from tokenizers import Tokenizer

    from tests.train.conftest import wordpiece

    tokenizer = Tokenizer.from_str(json.dumps(wordpiece(*WORDS)))
    rng = np.random.default_rng(0)
    rows = {w: rng.normal(size=6) for w in WORDS}
    texts = [" ".join(rng.choice(list(WORDS), size=rng.integers(1, 5))) for _ in range(300)]
    cache = VectorCache(tmp_path / "cache")
    teacher = [f"{i} {t}" for i, t in enumerate(texts)]
    cache.fill(
        iter(teacher),
        lambda ts: np.asarray([np.mean([rows[w] for w in t.split()[1:]], axis=0) for t in ts]),
    )
    for name, lines in (("teacher", teacher), ("student", texts)):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    np.save(tmp_path / "sources.npy", np.zeros(300, dtype=np.uint8))
    found = static_encoder(static_rows(tmp_path, cache, tokenizer, width=6), tokenizer)
    a, b = found(["кот", "пёс суп"])
    wanted = [rows["кот"], (rows["пёс"] + rows["суп"]) / 2]

    def cosine(x, y):
        return x @ y / np.linalg.norm(x) / np.linalg.norm(y)

    assert cosine(a, b) == pytest.approx(cosine(*wanted), abs=0.15)
    assert piece_shares(tokenizer, ["кот кот пёс"]).sum() == pytest.approx(1.0)


def test_cells_are_computed_once_and_anew_for_a_changed_system(configured, monkeypatch):
    calls = []
    kept = module.probe
    monkeypatch.setattr(module, "probe", lambda *a: calls.append(1) or kept(*a))
    results = evaluate(load_evaluation(configured))
    assert 0.5 < results["tiny"]["food"]["linear"] <= 1
    evaluate(load_evaluation(configured))
    assert len(calls) == 1
    evaluate(load_evaluation(configured, ["tasks=[]"]))
    other = load_evaluation(configured)
    changed = other.model_copy(
        update={"systems": [other.systems[0].model_copy(update={"width": 3})]}
    )
    evaluate(changed)
    assert len(calls) == 2
    readme = (configured.parent / "README.md").read_text()
    assert readme.startswith("a\n<!-- results -->\n| ") and readme.endswith(
        "<!-- /results -->\nb\n"
    )
    assert "old" not in readme and "| tiny |" in readme


def test_cells_are_computed_anew_for_changed_labels_and_settings(configured, classes, monkeypatch):
    calls = []
    kept = module.probe
    monkeypatch.setattr(module, "probe", lambda *a: calls.append(1) or kept(*a))
    evaluate(load_evaluation(configured))
    path = Path(classes.dev)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"label": 1', '"label": 0', 1), encoding="utf-8")
    evaluate(load_evaluation(configured))
    assert len(calls) == 2
    configured.write_text(configured.read_text("utf-8").replace('"auc"', '"accuracy"'), "utf-8")
    file = configured.parent / "results.json"
    results = evaluate(load_evaluation(configured))
    assert len(calls) == 3
    del results["tiny"]["asked"]  # as it was before questions were noted
    file.write_text(json.dumps(results), encoding="utf-8")
    evaluate(load_evaluation(configured))
    assert len(calls) == 3


def test_a_system_that_is_not_there_keeps_its_cells(configured, caplog):
    results = evaluate(load_evaluation(configured))
    text = configured.read_text(encoding="utf-8")
    gone = '[[systems]]\nname = "gone"\nkind = "package"\npath = "no/package"\n'
    configured.write_text(text + gone, encoding="utf-8")
    file = configured.parent / "results.json"
    kept = {**results, "gone": {"food": {"linear": 0.25}}}
    file.write_text(json.dumps(kept), encoding="utf-8")
    assert evaluate(load_evaluation(configured)) == kept
    assert "gone: no no/package: its cells stay as they are" in caplog.text
    file.write_text(json.dumps(results), encoding="utf-8")
    assert evaluate(load_evaluation(configured))["gone"] == {}


def test_configurations_are_checked(configured):
    text = configured.read_text(encoding="utf-8")
    configured.write_text(text + '[[systems]]\nname = "tiny"\nkind = "static"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="'tiny' stands twice"):
        load_evaluation(configured)
    text = text.replace('kind = "scores"\nsystems = ["tiny"]', 'kind = "changed"\nsystems = ["x"]')
    configured.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_evaluation(configured)
    assert len(error.value.problems) == 2
    configured.write_text(text + '[plane]\nshapes = ["y"]\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"plane\.shapes: no system 'y'"):
        load_evaluation(configured)
    configured.write_text(text.replace("metric", "metrik"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"metrik: unknown key; did you mean 'metric'\?"):
        load_evaluation(configured)


def test_tables_say_what_is_missing(tmp_path):
    results = {"a": {"properties": {"mb": 7.25, "width": 256}, "ads": {"linear": 0.8214}}}
    assert mean_score(results["a"]) is None
    row = main_table(results, ["a"])[2]
    assert row.startswith("| a | 7.2 | 256 |") and "| 0.821 |" in row
    with pytest.raises(InputError, match="no system 'b': it has a"):
        main_table(results, ["b"])
    (tmp_path / "R.md").write_text("nothing", encoding="utf-8")
    with pytest.raises(InputError, match="where the table goes"):
        insert(tmp_path / "R.md", "results", ["x"])


def scored(value, ms):
    cells = {cell: {key: value} for cell, (_, key) in COLUMNS.items()}
    return {**cells, "properties": {"mb": 7.0}, "speed": {"ms": ms}}


def test_shares_are_of_the_mean_of_the_reference():
    results = {
        "half": scored(0.4, 0.1),
        "whole": scored(0.5, 0.4),
        "none": {"fingerprint": "-"},
        "later": {},
    }
    rows = main_table(results, ["half", "whole", "none", "later"], "whole")
    assert [row.split(" | ")[-1] for row in rows[2:]] == ["80.0% |", "100.0% |", " |"]
    assert rows[0].endswith("| mean | of whole |") and rows[0].count("|") == rows[1].count("|")
    with pytest.raises(InputError, match="no system 'absent'"):
        main_table(results, ["half"], "absent")


def test_the_plane_is_drawn(tmp_path):
    results = {"a": scored(0.5, 0.4), "b": scored(0.6, 0.8), "no time": scored(0.5, None)}
    plot_plane(
        results, {"shapes": ["a", "no time"], "vocabularies": ["b", "a"]}, tmp_path / "p.png"
    )
    assert (tmp_path / "p.png").stat().st_size > 5000
    with pytest.raises(InputError, match="no system 'c'"):
        plot_plane(results, {"shapes": ["c"]}, tmp_path / "p.png")
