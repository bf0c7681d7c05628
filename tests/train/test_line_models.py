import pytest
import torch
from safetensors.torch import load_file

from train import line_models
from train.config import load_config
from train.folders import Line
from train.line import run_line

LINE = """
run = "runs/{name}"
[corpus]
directory = "corpus"
min_chars = 1
buckets = 2
valid_share = 0.2
[[corpus.sources]]
name = "words"
files = ["words.txt"]
license = "CC0"
[vocabulary]
method = "train"
size = 60
min_char_count = 1
[shards]
max_length = 16
processes = 1
[student]
layers = 1
hidden_size = 8
heads = 2
ffn_size = 16
max_length = 32
initial_rows = "cooccurrence"
[distil]
alignment = "none"
mlm = 1.0
steps = 2
checkpoint_steps = 1
tokens_per_batch = 200
"""


def killed(*_, **__):
    raise KeyboardInterrupt


def test_a_student_that_goes_on_is_not_started_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["кот", "дом", "сад", "суп", "лес", "мир", "чай", "снег"]
    lines = [f"{a} и {b}, {c}." for a in words for b in words for c in words[:3]]
    (tmp_path / "words.txt").write_text("\n".join(lines), encoding="utf-8")
    both = []
    for name in ("whole", "cut"):
        file = tmp_path / f"{name}.toml"
        file.write_text(LINE.format(name=name), encoding="utf-8")
        both.append(Line(load_config(file)))
    stages = ("corpus", "vocabulary", "shards", "distil")
    run_line(both[0], stages)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(line_models, "write_checkpoint", killed)
        run_line(both[1], stages)
    monkeypatch.setattr(line_models, "_fill_from_cooccurrence", killed)
    run_line(both[1], stages)
    whole, cut = (load_file(line.folder("04-student") / "model.safetensors") for line in both)
    assert whole.keys() == cut.keys() and all(torch.equal(whole[k], cut[k]) for k in whole)
