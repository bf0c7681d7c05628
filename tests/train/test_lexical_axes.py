"""A line that learns vectors of pieces beside its student, to the package and back."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from export.turn import read_turn
from rubert_lite.errors import ConfigError
from train import cloze
from train.axes import keep_axes
from train.config import load_config
from train.folders import Line
from train.items import Items
from train.learnt_axes import unit
from train.line import run_line
from train.line_vectors import open_targets
from train.loading import load_masked_lm
from train.pooled import piece_lists, pooled_vectors

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


def test_a_frozen_encoder_keeps_them(made, tmp_path):
    folder = made.folder("05-sentence")
    (tmp_path / "tuned").mkdir()
    keep_axes(folder, tmp_path / "tuned")
    assert sorted(p.name for p in (tmp_path / "tuned").iterdir()) == [
        "axes.safetensors",
        "lexical.safetensors",
    ]


def test_what_stands_behind_a_map_is_joined_as_it_is(made):
    """Former axes of zeros in all but one dimension leave one, beside the pieces."""
    width = read_turn(made.folder("05-sentence"), 8, made_pieces(made)).axes.shape[0]
    former = np.zeros((width, width), np.float16)
    former[0, 3] = 1
    Path("former").mkdir()
    save_file({"weight": former}, "former/axes.safetensors")
    changes = [*LEXICAL, AXES, "sentence.former_axes=former", "run=runs/former"]
    line = Line(load_config(Path("more.toml"), changes))
    run_line(line, UNTIL_SENTENCE)
    axes = read_turn(line.folder("05-sentence"), width, made_pieces(line)).axes
    of_states = np.abs(axes[:, :width])
    assert of_states[:, 3].max() > 0.1 and np.delete(of_states, 3, axis=1).max() < 1e-3


def made_pieces(line: Line) -> int:
    text = (line.folder("05-sentence") / "tokenizer.json").read_text(encoding="utf-8")
    return len(json.loads(text)["model"]["vocab"])


def test_they_need_a_map(released):
    with pytest.raises(ConfigError, match="sentence.lexical: the map of axes"):
        load_config(Path("more.toml"), LEXICAL)
    with pytest.raises(ConfigError, match="width"):
        load_config(Path("more.toml"), ["sentence.lexical={width=7}", AXES])
