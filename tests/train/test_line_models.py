import pytest
import torch
from safetensors.torch import load_file

from train import line_models
from train.config import load_config
from train.folders import Line
from train.line import run_line

from .toy_line import CORPUS, STUDENT, write_words

LINE = (
    'run = "runs/{name}"\n'
    + CORPUS
    + """
[vocabulary]
method = "train"
size = 60
min_char_count = 1
[shards]
max_length = 16
processes = 1
"""
    + STUDENT
    + """
initial_rows = "cooccurrence"
[distil]
alignment = "none"
mlm = 1.0
steps = 2
checkpoint_steps = 1
tokens_per_batch = 200
"""
)


def killed(*_, **__):
    raise KeyboardInterrupt


def test_a_student_that_goes_on_is_not_started_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_words(tmp_path)
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
