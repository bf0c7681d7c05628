"""What cannot be learnt behind former axes, or by rows alone, is told before a step."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rubert_lite.errors import ConfigError, InputError
from train.axes import read_axes
from train.config import load_config
from train.encoders import open_encoder
from train.folders import Line
from train.former import check_fits, open_former, tell_what_is_lost
from train.line import run_line

from .toy_former import ROWS, former_axes, former_with_pieces
from .toy_released import UNTIL_SENTENCE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("sentence.weight_decay=0.01", "weight_decay = 0"),
        ("sentence.optimizer=muon", "muon"),
        ("sentence.only_rows=[a-", "no regular expression"),
        ('sentence.mix=[{checkpoint="released", share=0.3}]', "with mix"),
    ],
)
def test_what_would_move_other_weights_is_refused(released, change, words):
    with pytest.raises(ConfigError, match=words):
        load_config(Path("more.toml"), [*ROWS, change])


def test_only_axes_that_stay_leave_something_out(released):
    for change in ("sentence.projection=rotation", "sentence.sort_dimensions=true"):
        with pytest.raises(ConfigError, match=r"remainder: of axes that stay"):
            load_config(Path("more.toml"), [*ROWS[:3], "sentence.remainder=0.3", change])


def test_a_map_would_learn_beside_rows(released):
    rows = ["sentence.only_rows=[a-z]", "sentence.weight_decay=0.0", "sentence.projection=map"]
    with pytest.raises(ConfigError, match="would learn, too"):
        load_config(Path("more.toml"), rows)


def test_prefixes_are_held_to_the_axes(released):
    """The vectors of a package may be wider than its states, or narrower."""
    former_with_pieces(released)
    load_config(Path("more.toml"), [*ROWS, "sentence.prefixes=[4, 12]"])
    own = json.loads((released / "tokenizer.json").read_text(encoding="utf-8"))
    former = open_former(Path("former"), own, 8)
    check_fits(former, "former", teachers=8, prefixes=[8], remainder=0.5)
    with pytest.raises(ConfigError, match=r"prefixes = \[9\]: above the 8 axes of former"):
        check_fits(former, "former", teachers=8, prefixes=[9], remainder=0)


def test_what_a_source_ends_with_is_not_lost_in_silence(released, caplog):
    former_with_pieces(released)
    former = Path("former")
    tell_what_is_lost(former, projection="axes", lexical=False, only_rows=True)
    tell_what_is_lost(former, projection="map", lexical=True, only_rows=False)
    assert not caplog.records
    tell_what_is_lost(former, projection="map", lexical=False, only_rows=False)
    assert "vectors of pieces are left out: sentence.projection = 'axes'" in caplog.text
    shutil.copy("former/axes.safetensors", released)
    rows = [c for c in ROWS if "former" not in c and "projection" not in c]
    line = Line(load_config(Path("more.toml"), [*rows, "run=runs/turned"]))
    with pytest.raises(ConfigError, match="ends with axes, without which all change"):
        run_line(line, UNTIL_SENTENCE)


def test_a_stage_behind_axes_teaches_by_its_export_alone(released):
    """The folder's own weights say something else than the package that users would read."""
    former_axes()
    line = Line(load_config(Path("more.toml"), [*ROWS, "sentence.steps=1"]))
    run_line(line, UNTIL_SENTENCE)
    with pytest.raises(InputError, match=r"rubert-lite export .*05-sentence --to PACKAGE"):
        open_encoder(str(line.folder("05-sentence")))


def test_rows_that_are_none_or_all_are_told(released):
    former_axes()
    for pattern in ("[0-9]{9}", ""):
        change = f"sentence.only_rows=({pattern})"
        line = Line(load_config(Path("more.toml"), [*ROWS, change, "run=runs/other"]))
        with pytest.raises(ConfigError, match=r"only_rows = .* matches \d+ of 60 pieces"):
            run_line(line, UNTIL_SENTENCE)


def test_teachers_of_another_width_need_another_projection(released):
    former_axes()
    changes = [*ROWS, 'sentence.teacher_beside=["words.txt"]']
    with pytest.raises(ConfigError, match="16 wide, expected 8"):
        run_line(Line(load_config(Path("more.toml"), changes)), UNTIL_SENTENCE)


def test_damaged_axes_and_vectors_of_pieces_are_told(released):
    former_with_pieces(released)
    own = json.loads((released / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer = Path("former/tokenizer.json").read_bytes()
    Path("former/tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json: no such file"):
        open_former(Path("former"), own, 8)
    Path("former/tokenizer.json").write_bytes(tokenizer)
    axes = np.ones((8, 14), np.float16)
    for tensors, words in (
        ({"axes": axes}, "has axes, expected weight"),
        ({"weight": axes[0]}, "expected weight, a matrix"),
        ({"weight": axes * np.inf}, "not finite"),
    ):
        save_file(tensors, "former/axes.safetensors")
        with pytest.raises(InputError, match=words):
            open_former(Path("former"), own, 8)
    Path("former/axes.safetensors").write_bytes(b"garbage")
    with pytest.raises(InputError, match=r"axes\.safetensors: cannot be read"):
        read_axes(Path("former"))
