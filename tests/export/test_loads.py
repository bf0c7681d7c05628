"""What export writes can be loaded, or nothing is written."""

import json

import pytest

from export.pack import export
from rubert_lite import PackageError, load

from .conftest import write_checkpoint


def change_tokenizer(folder, **changes):
    file = folder / "tokenizer.json"
    spec = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(spec | changes), encoding="utf-8")


def test_a_package_that_does_not_load_replaces_none(tmp_path):
    folder, out = write_checkpoint(tmp_path / "c"), tmp_path / "p"
    export(folder, out)
    change_tokenizer(folder, post_processor=None)
    with pytest.raises(PackageError, match=r"expected BERT's \[CLS\] and \[SEP\]"):
        export(folder, out, replace=True)
    assert load(out).encode(["привет"]).shape == (1, 64)


def test_stripped_accents_are_told(tmp_path, caplog):
    folder = write_checkpoint(tmp_path / "c")
    export(folder, tmp_path / "kept")
    assert "accents" not in caplog.text
    bert = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    change_tokenizer(folder, normalizer=bert | {"lowercase": True, "strip_accents": None})
    package = export(folder, tmp_path / "stripped")
    assert "reads й as и and ё as е" in caplog.text
    assert "reads й as и and ё as е" in (package.path / "README.md").read_text(encoding="utf-8")
    model = load(package.path)
    assert model.tokenize("мой") == model.tokenize("мои")
