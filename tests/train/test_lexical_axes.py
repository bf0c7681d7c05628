"""A line that learns vectors of pieces beside its student, to the package and back."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from export.turn import read_turn
from rubert_lite.errors import ConfigError, InputError
from train import cloze
from train.axes import keep_axes, open_rotation
from train.config import load_config
from train.folders import Line
from train.items import Items
from train.learnt_axes import unit
from train.line import run_line
from train.line_vectors import open_targets
from train.pooled import piece_lists, pooled_vectors
from train.student import load_masked_lm

from .toy_released import UNTIL_SENTENCE

LEXICAL = ["run=runs/lexical", "sentence.lexical={width=6, steps=3, batch=8}"]
AXES = "sentence.axes={whitening=0.2, steps=3, prefixes=0.5}"


@pytest.fixture
def made(released, monkeypatch):
    monkeypatch.setattr(cloze, "LEAST", 6)  # the toy's texts are short
    line = Line(load_config(Path("more.toml"), [*LEXICAL, AXES]))
    run_line(line, UNTIL_SENTENCE)
    return line


def test_the_line_writes_a_table_and_axes_that_join_it(made):
    folder = made.folder("05-sentence")
    student = load_masked_lm(folder, headless=True)
    width = student.config.dim
    turn = read_turn(folder, width, student.config.vocab_size)
    assert turn.axes.shape == (width, width + 6) and turn.lexical.shape[1] == 6
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    special = [tokenizer["model"]["vocab"][p] for p in ("[PAD]", "[CLS]", "[SEP]", "[MASK]")]
    assert not turn.lexical[special].any() and turn.lexical.any(1).mean() > 0.5

    items = Items.open(made.folder("05-items"), "train", open_targets(made), pad_id=0)
    rows = np.arange(len(items))
    said, ids = pooled_vectors(student, items, rows), piece_lists(items, rows)
    vectors = unit(turn.of(said, ids))
    assert np.isfinite(vectors).all()
    power = (vectors**2).sum(0)
    assert power[: width // 2].sum() > power[width // 2 :].sum()
    alone = unit(said @ turn.axes[:, :width].T)
    assert np.abs(vectors - alone).max() > 0.01  # the pieces have a part in it
    told = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    assert told["config"]["sentence"]["lexical"]["width"] == 6


def test_two_runs_learn_the_same(made):
    again = Line(load_config(Path("more.toml"), [*LEXICAL, AXES, "run=runs/again"]))
    run_line(again, UNTIL_SENTENCE)
    for name in ("axes", "lexical"):
        one, same = (
            load_file(line.folder("05-sentence") / f"{name}.safetensors")["weight"]
            for line in (made, again)
        )
        np.testing.assert_allclose(one.astype("f4"), same.astype("f4"), atol=2e-3)


def test_a_frozen_encoder_keeps_them_and_no_teacher_is_turned_by_them(made, tmp_path):
    folder = made.folder("05-sentence")
    (tmp_path / "tuned").mkdir()
    keep_axes(folder, tmp_path / "tuned")
    assert sorted(p.name for p in (tmp_path / "tuned").iterdir()) == [
        "axes.safetensors",
        "lexical.safetensors",
    ]
    with pytest.raises(InputError, match="in no teacher's space"):
        open_rotation(folder / "rotation.npy")


def test_they_need_a_map(released):
    with pytest.raises(ConfigError, match="sentence.lexical: the map of axes"):
        load_config(Path("more.toml"), LEXICAL)
    with pytest.raises(ConfigError, match="width"):
        load_config(Path("more.toml"), ["sentence.lexical={width=7}", AXES])
