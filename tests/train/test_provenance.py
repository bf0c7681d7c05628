"""What is known of a checkpoint that others wrote, or nobody described."""

import json

from train.provenance import _lineage, add_corpora, read_training, tell_changed


def test_lineage_goes_back_as_far_as_it_is_recorded(tmp_path):
    folders = [tmp_path / name for name in ("bare", "empty", "whole")]
    for folder in folders:
        folder.mkdir()
    (folders[1] / "manifest.json").write_text('{"provenance": {}}', encoding="utf-8")
    known = {"teacher": "owner/rubert", "lineage": ["owner/rubert"]}
    (folders[2] / "training.json").write_text(json.dumps(known), encoding="utf-8")
    assert [_lineage(str(f)) for f in folders] == [
        ["bare", "unknown (bare)", "unknown"],
        ["empty", "unknown", "unknown"],
        ["whole", "owner/rubert", "owner/rubert"],
    ]
    assert _lineage("") == [] and _lineage("owner/name") == ["owner/name", "unknown"]


def test_a_checkpoint_of_other_origin_is_known_by_its_name(tmp_path):
    found = read_training(tmp_path)
    assert found["teacher"] == f"unknown ({tmp_path.name})"
    assert (found["corpora"], found["config"], found["metrics"]) == ([], {}, {})


def test_a_corpus_that_is_read_again_is_told_once():
    news = {"name": "news", "license": "CC0", "texts": 5}
    training = {"corpora": [dict(news), {"name": "words", "license": "CC0"}]}
    labels = {**news, "use": "labels"}
    add_corpora(training, [{**news, "texts": 4}, labels, {**labels, "texts": 7}])
    add_corpora(training, [{**news, "license": "MIT"}])
    assert training["corpora"] == [
        news,
        {"name": "words", "license": "CC0"},
        {**labels, "texts": 7},
        {**news, "license": "MIT"},
    ]


def test_weights_of_a_package_are_what_a_model_began_with():
    training = {"weights": "read from the graph int8 of p, rounded as it is", "seed": 1}
    tell_changed(training)
    tell_changed(training)
    assert training == {"began_with": "read from the graph int8 of p, rounded as it is", "seed": 1}
