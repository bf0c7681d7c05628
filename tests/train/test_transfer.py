"""An encoder that gets other pieces: by hand, and through the sentence stage."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from rubert_lite.errors import ConfigError
from rubert_lite.wordpiece import SPECIAL_PIECES, bert_tokenizer_spec
from train.config import load_config
from train.folders import Line
from train.line import run_line
from train.loading import load_masked_lm
from train.provenance import read_training
from train.student import Shape, build, count_parameters, encoder, output_rows
from train.transfer import change_pieces

from .toy_released import MORE, UNTIL_SENTENCE, mixed

FORMER = bert_tokenizer_spec([*SPECIAL_PIECES, "до", "##м", "##ик", "мир", "ы"])
OWN = bert_tokenizer_spec([*SPECIAL_PIECES, "мир", "домик", "##ик", "x", "до", "##м"])


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_rows_are_kept_or_made_of_their_parts(architecture):
    shape = Shape(layers=1, hidden_size=8, heads=2, ffn_size=8, vocab_size=10, dropout=0.0)
    torch.manual_seed(0)
    model = build(Shape(**{**vars(shape), "architecture": architecture})).eval()
    _, rows, bias = output_rows(model)
    with torch.no_grad():
        bias.copy_(torch.randn(10))
    rows, bias = rows.detach().clone(), bias.detach().clone()
    said = model(input_ids=torch.tensor([[2, 8, 5, 6, 7, 3]])).logits.detach()
    change_pieces(model, FORMER, OWN)
    _, now, now_bias = output_rows(model)
    assert now.shape == (11, 8) and now_bias.shape == (11,)
    assert now is encoder(model).embeddings.word_embeddings.weight  # still tied
    torch.testing.assert_close(now[:5], rows[:5])
    torch.testing.assert_close(now[[5, 7, 9, 10]], rows[[8, 7, 5, 6]])
    torch.testing.assert_close(now[6], rows[[5, 6, 7]].mean(0))  # до ##м ##ик
    torch.testing.assert_close(now_bias[6], bias[[5, 6, 7]].mean())
    torch.testing.assert_close(now[8], rows.mean(0))  # x: no piece of the former has it
    # A text of pieces that both have is read as before, and its pieces are as likely.
    again = model(input_ids=torch.tensor([[2, 5, 9, 10, 7, 3]])).logits
    torch.testing.assert_close(again[..., [5, 7, 9, 10]], said[..., [8, 7, 5, 6]])
    assert model.config.vocab_size == 11


NEW = MORE.replace('method = "full"\ntokenizer = "released"\n', "size = 50\npairs = 0.5\n")


def test_a_source_with_other_pieces_learns_on_with_those_of_the_line(released):  # noqa: F811
    shutil.copytree(released, "other")
    changes = ["sentence.new_pieces=true", mixed(("other", 0.5))]
    Path("more.toml").write_text(NEW, encoding="utf-8")
    line = Line(load_config(Path("more.toml"), changes))
    run_line(line, UNTIL_SENTENCE)
    made = line.folder("05-sentence")
    own, items, former = (
        json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
        for folder in (made, line.folder("05-items"), released)
    )
    assert len(own) == 50 != len(former) and own == items
    told = read_training(made)
    assert told["config"]["vocabulary"]["size"] == 50
    assert told["parameters"] == count_parameters(load_masked_lm(made))
    rows = output_rows(load_masked_lm(made))[1]
    was = output_rows(load_masked_lm(released, headless=True))[1]
    both = sorted(set(own) & set(former) - {"[PAD]"})
    assert len(both) > 20
    here, there = ([vocabulary[p] for p in both] for vocabulary in (own, former))
    torch.testing.assert_close(rows[here], was[there], atol=1e-3, rtol=0)  # a step at 1e-5
    with pytest.raises(ConfigError, match="none is given"):
        load_config(Path("more.toml"), ["sentence.new_pieces=true", 'sentence.source=""'])
