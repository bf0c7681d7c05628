"""What the record of a student says of its pieces."""

import json
from pathlib import Path

from train.config import VocabularyConfig
from train.provenance import _vocabulary


def test_a_vocabulary_taken_whole_is_told_as_it_was_made(tmp_path: Path) -> None:
    taken = VocabularyConfig(method="full", tokenizer=str(tmp_path))
    assert _vocabulary(taken) == taken.model_dump()  # how it was made is not on record
    made = {"method": "extend", "size": 5500, "tokenizer": "released", "read": {"sources": []}}
    (tmp_path / "stage.json").write_text(json.dumps({"settings": made}), encoding="utf-8")
    found = _vocabulary(taken)
    assert (found["method"], found["size"], found["tokenizer"]) == ("extend", 5500, "released")
    assert found.keys() == taken.model_dump().keys()
    cut = VocabularyConfig(method="prune", tokenizer=str(tmp_path))
    assert _vocabulary(cut) == cut.model_dump()
