from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rubert_lite.errors import InputError
from train import line_start, line_student
from train.config import load_config
from train.folders import Line
from train.line import STAGES, run_line

from .toy_line import CORPUS, SMALL, STUDENT, write_words

LINE = (
    'run = "runs/{name}"\n'
    + CORPUS
    + SMALL
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
SENTENCE = """
[sentence]
teacher = "encoder"
language = 0.1
language_teacher = false
prefixes = [4]
max_length = 16
[[sentence.sources]]
name = "pairs"
files = ["pairs.tsv"]
license = "CC0"
"""


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
        patch.setattr(line_student, "write_checkpoint", killed)
        run_line(both[1], stages)
    monkeypatch.setattr(line_start, "_fill_from_cooccurrence", killed)
    run_line(both[1], stages)
    whole, cut = (load_file(line.folder("04-student") / "model.safetensors") for line in both)
    assert whole.keys() == cut.keys() and all(torch.equal(whole[k], cut[k]) for k in whole)


def test_a_teacher_that_is_not_read_is_not_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = LINE.format(name="more") + '[teacher]\nconfig = "teacher.toml"\n' + SENTENCE
    Path("more.toml").write_text(text, encoding="utf-8")
    Path("teacher.toml").write_text(LINE.format(name="teacher"), encoding="utf-8")
    made = []
    for stage in STAGES:
        note = partial(lambda name, line: made.append((name, line.config.run)), stage)
        monkeypatch.setitem(STAGES, stage, note)
    line = Line(load_config(Path("more.toml")))
    run_line(line, ["corpus", "shards", "items", "sentence"])
    assert {run for _, run in made} == {"runs/more"}
    made.clear()
    run_line(line, ["vocabulary"])
    assert made[-1] == ("vocabulary", "runs/more")
    assert ("distil", "runs/teacher") in made
    made.clear()
    speaking = load_config(Path("more.toml"), ["sentence.language_teacher=true"])
    run_line(Line(speaking), ["sentence"])
    assert ("distil", "runs/teacher") in made


def test_a_student_starts_with_measured_layers_and_parts(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    write_words(tmp_path)
    teacher = LINE.format(name="teacher").replace("cooccurrence", "random")
    teacher = teacher.replace("layers = 1", "layers = 3").replace(
        "hidden_size = 8", "hidden_size = 16"
    )
    Path("teacher.toml").write_text(teacher.replace("heads = 2", "heads = 4"), encoding="utf-8")
    text = LINE.format(name="student").replace("cooccurrence", "fvt") + "[teacher]\n"
    Path("student.toml").write_text(text + 'config = "teacher.toml"\n', encoding="utf-8")
    measured = ["student.initial_layers=measured", "student.cut=measured"]
    line = Line(load_config(Path("student.toml"), measured))
    stages = ("corpus", "vocabulary", "shards", "distil")
    with caplog.at_level("INFO"):
        run_line(line, stages)
    assert "the student starts with layers [" in caplog.text
    assert load_file(line.folder("04-student") / "model.safetensors")
    for changed, message in (
        ("student.heads=1", "takes whole heads"),
        ("student.ffn_size=17", "no more units than there are"),
        ("student.layers=4", "above the teacher's 3"),
    ):
        wrong = load_config(Path("student.toml"), [*measured, changed, "run=runs/wrong"])
        with pytest.raises(InputError, match=message):
            run_line(Line(wrong), stages)
