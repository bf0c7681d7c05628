import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerFast

from export.__main__ import main
from export.pack import export
from export.remap import read_kept, trim, write_table
from rubert_lite import load
from rubert_lite.errors import InputError, PackageError
from rubert_lite.wordpiece import bert_tokenizer_spec, map_tokenizer
from tests.export.conftest import PIECES, write_checkpoint

DROPPED = ("поезд", "##ами", "слово")
KEPT = [i for i, p in enumerate(PIECES) if p not in DROPPED]
# Places in KEPT[::-1]: the special pieces are its end.
SPECIAL_AND_SOME = [*range(len(KEPT) - 5, len(KEPT)), 3, 1, 7, 0, 20, 11]
SAME = ["привет, мир", "лук не дом", "АБВ 123"]


@pytest.mark.parametrize("kind", ["distilbert", "bert"])
@pytest.mark.parametrize("order", [1, -1])
def test_trimming_keeps_the_vectors_of_texts_whose_pieces_were_kept(tmp_path, kind, order):
    folder = write_checkpoint(tmp_path / "c", kind=kind)
    trim(folder, KEPT[::order], tmp_path / "t")
    models = [
        load(export(c, tmp_path / f"p{n}", variants=("fp32", "int8")).path, variant=variant)
        for n, (c, variant) in enumerate(
            [(folder, "fp32"), (tmp_path / "t", "fp32"), (folder, "int8"), (tmp_path / "t", "int8")]
        )
    ]
    vectors = [m.encode(SAME) for m in models]
    assert (vectors[0] == vectors[1]).all() and (vectors[2] == vectors[3]).all()
    split = models[1].tokenize("поезд")
    assert "|".join(split) == "[CLS]|п|##о|##е|##з|##д|[SEP]"


@pytest.mark.parametrize("kind", ["distilbert", "bert"])
def test_a_trimmed_model_predicts_as_before_in_transformers(tmp_path, kind):
    folder = write_checkpoint(tmp_path / "c", kind=kind)
    # As transformers itself saves a tokenizer: with old ids in tokenizer_config.json.
    PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]", mask_token="[MASK]"
    ).save_pretrained(folder)
    old = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    assert old["0"]["content"] == "[PAD]"
    trim(folder, KEPT[::-1], tmp_path / "t")
    settings = json.loads((tmp_path / "t" / "tokenizer_config.json").read_text())
    assert settings["pad_token"] == "[PAD]" and "added_tokens_decoder" not in settings
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "t")
    assert tokenizer.pad_token_id == len(KEPT) - 1
    logits = []
    for place in (folder, tmp_path / "t"):
        model = AutoModelForMaskedLM.from_pretrained(place).eval()
        ids = AutoTokenizer.from_pretrained(place)("лук [MASK] дом", return_tensors="pt").input_ids
        with torch.no_grad():
            logits.append(model(ids).logits.numpy())
    assert logits[0].shape[1:] == (5, len(PIECES)) and logits[1].shape[2] == len(KEPT)
    assert np.abs(logits[0][:, :, KEPT[::-1]] - logits[1]).max() < 1e-5


def test_trimming_twice_still_names_the_first_ids(checkpoint, tmp_path):
    shutil.copyfile(__file__, checkpoint / "vocab.txt")
    (checkpoint / "added_tokens.json").write_text("{}")
    trim(checkpoint, KEPT[::-1], tmp_path / "once")
    trim(tmp_path / "once", SPECIAL_AND_SOME, tmp_path / "twice")
    vocabulary = json.loads((tmp_path / "twice" / "vocabulary.json").read_text())
    assert vocabulary == {
        "method": "prune",
        "teacher_ids": [KEPT[::-1][i] for i in SPECIAL_AND_SOME],
    }
    assert sorted(p.name for p in (tmp_path / "twice").iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json", "vocabulary.json"
    ]  # fmt: skip
    rows = load_file(tmp_path / "twice" / "model.safetensors")["vocab_projector.bias"]
    assert len(rows) == len(SPECIAL_AND_SOME) == 11


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (KEPT[5:], "must be kept"),
        ([*KEPT, KEPT[-1]], "twice"),
        ([*KEPT, len(PIECES)], "outside the vocabulary"),
        ([*KEPT, -1], "outside the vocabulary"),
    ],
)
def test_ids_that_cannot_be_kept_are_told(checkpoint, tmp_path, kept, message):
    with pytest.raises(InputError, match=message):
        trim(checkpoint, kept, tmp_path / "t")
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_a_checkpoint_that_cannot_be_trimmed_is_told(checkpoint, tmp_path):
    (checkpoint / "vocabulary.json").write_text('{"teacher_ids": [1, 2]}')
    with pytest.raises(InputError, match="teacher_ids"):
        trim(checkpoint, KEPT, tmp_path / "t")
    (checkpoint / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    with pytest.raises(PackageError, match="WordPiece"):
        trim(checkpoint, KEPT, tmp_path / "t")
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        trim(checkpoint, KEPT, tmp_path / "t")


def test_the_table_is_for_people(checkpoint, tmp_path):
    trim(checkpoint, KEPT, tmp_path / "t")
    write_table(tmp_path / "t", tmp_path / "vocab.tsv")
    rows = (tmp_path / "vocab.tsv").read_text().splitlines()
    assert rows[0] == "id\tteacher_id\tpiece" and len(rows) == len(KEPT) + 1
    assert rows[-1] == f"{len(KEPT) - 1}\t{len(PIECES) - 1}\tи##"


def test_pieces_that_share_an_id_stand_below_each_other(tmp_path):
    rows = len(PIECES) - 5
    spec = map_tokenizer(
        bert_tokenizer_spec(PIECES), [i if i < rows else 10 for i in range(len(PIECES))]
    )
    folder = write_checkpoint(tmp_path / "c", vocab=rows, spec=spec)
    ids = [100 + i for i in range(rows)]
    (folder / "vocabulary.json").write_text(json.dumps({"method": "map", "teacher_ids": ids}))
    package = export(folder, tmp_path / "p", variants=("int8", "table"))
    lines = (package.path / "vocab.tsv").read_text().splitlines()
    assert len(lines) == len(PIECES) + 1
    shared = [line.split("\t") for line in lines[11:17]]
    assert {(new, old) for new, old, _ in shared} == {("10", "110")}
    assert sorted(piece for _, _, piece in shared) == sorted([PIECES[10], *PIECES[-5:]])


def test_kept_ids_are_read_from_json_and_lines(tmp_path):
    (tmp_path / "k.json").write_text("[3, 1, 2]")
    (tmp_path / "k.txt").write_text("3\n1\n2\n")
    assert read_kept(tmp_path / "k.json") == read_kept(tmp_path / "k.txt") == [3, 1, 2]
    for name, text in (
        ("k.json", '{"a": 1'),
        ("k.json", "3"),
        ("k.json", "[0.9]"),
        ("k.txt", "три"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match="JSON list of ids, or one id a line"):
            read_kept(tmp_path / name)
    with pytest.raises(InputError, match="No such file"):
        read_kept(tmp_path / "none")


def test_the_command_trims_first(checkpoint, tmp_path, capsys):
    (tmp_path / "kept.json").write_text(json.dumps(KEPT))
    (tmp_path / "texts.txt").write_text("Мой дом\nТвой мир\n", encoding="utf-8")
    words = [str(checkpoint), "--to", str(tmp_path / "p"), "--keep", str(tmp_path / "kept.json")]
    assert main([*words, "--texts", str(tmp_path / "texts.txt"), "--name", "малая"]) == 0
    manifest = load(tmp_path / "p").package.manifest
    assert (manifest.name, manifest.vocab_size) == ("малая", len(KEPT))
    assert manifest.metrics["parity"]["int8"]["cases"] > 60
    assert main([*words[:3], "--keep", str(tmp_path / "none"), "--force"]) == 1
    assert capsys.readouterr().err.count("\n") == 2
