"""What is known of a checkpoint that others wrote, or nobody described."""

import json

from train.provenance import _lineage, read_training


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
