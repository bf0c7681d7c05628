"""A sentence stage behind the axes of a former checkpoint, in which rows alone may learn."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from rubert_lite.errors import ConfigError, InputError
from rubert_lite.wordpiece import SPECIAL_PIECES, bert_tokenizer_spec, pieces_by_id
from train.axes import copy_map
from train.config import load_config
from train.folders import Line
from train.former import open_former, with_remainder
from train.items import Items
from train.learnt_axes import unit
from train.lexical import bags_of, sums
from train.line import run_line
from train.line_vectors import open_targets
from train.loading import load_masked_lm
from train.pooled import piece_lists, pooled_vectors
from train.provenance import read_training
from train.rows import rounded
from train.student import encoder
from train.tokenizer import open_tokenizer

from .toy_released import UNTIL_SENTENCE

ROWS = [
    "sentence.former_axes=former",
    "sentence.projection=axes",
    "sentence.sort_dimensions=false",
    "sentence.only_rows=[а-н]",
    "sentence.weight_decay=0.0",
    "sentence.bag=0.0",
    "sentence.language=0.0",
    "sentence.steps=40",
    "sentence.learning_rate=0.05",
]


def former_axes():
    """Write a folder `former` with axes alone."""
    axes = np.random.default_rng(5).normal(size=(8, 8)).astype(np.float16)
    Path("former").mkdir()
    save_file({"weight": axes}, "former/axes.safetensors")
    return axes


def former_with_pieces(released):
    """Write a folder `former` with axes that join vectors of the released pieces."""
    chance = np.random.default_rng(5)
    tokenizer = json.loads((released / "tokenizer.json").read_text(encoding="utf-8"))
    pieces = pieces_by_id(tokenizer)
    rows = chance.normal(size=(len(pieces), 6)).astype(np.float32)
    rows[[pieces.index(piece) for piece in SPECIAL_PIECES]] = 0
    Path("former").mkdir()
    shutil.copyfile(released / "tokenizer.json", "former/tokenizer.json")
    axes = chance.normal(size=(8, 14)).astype(np.float16)
    save_file({"weight": axes}, "former/axes.safetensors")
    save_file({"weight": rows}, "former/lexical.safetensors")
    return axes, rows, pieces, tokenizer


def test_vectors_of_pieces_are_carried_over_to_new_ones(released):
    axes, rows, pieces, tokenizer = former_with_pieces(released)
    own = bert_tokenizer_spec([*SPECIAL_PIECES, *reversed(pieces[9:]), "ё", "домсад"])
    former = open_former(Path("former"), own, 8)
    found = former.pieces.weight.detach().numpy()
    known = {piece: row for piece, row in zip(pieces, rows, strict=True)}
    for piece, row in zip(pieces_by_id(own), found, strict=True):
        if piece in known:
            assert (row == known[piece]).all(), piece
    parts = [
        tokenizer["model"]["vocab"][p] for p in open_tokenizer(tokenizer).encode("домсад").tokens
    ]
    np.testing.assert_allclose(found[-1], rows[parts].sum(0), atol=1e-6)
    assert not found[pieces_by_id(own).index("[SEP]")].any()
    # Padding is not read, and vectors are joined as export joins them.
    ids, mask = torch.tensor([[9, 20, 0]]), torch.tensor([[True, True, False]])
    pooled = torch.randn(1, 8)
    joined = np.concatenate([unit(pooled.numpy()), unit(found[[9, 20]].sum(0)[None])], axis=1)
    said = former(pooled, ids, mask).detach().numpy()
    np.testing.assert_allclose(said, joined @ axes.T.astype(np.float32), atol=1e-5)


def test_vectors_of_pieces_that_do_not_fit_are_told(released):
    *_, tokenizer = former_with_pieces(released)
    with pytest.raises(InputError, match=r"\[8, 14\], expected 10 columns"):
        open_former(Path("former"), tokenizer, 4)
    save_file({"weight": np.zeros((7, 6), np.float32)}, "former/lexical.safetensors")
    with pytest.raises(InputError, match="7 vectors, expected one for each of the 60"):
        open_former(Path("former"), tokenizer, 8)
    # Before anything is trained.
    with pytest.raises(InputError, match="without vectors of pieces"):
        changes = ["sentence.former_axes=former"]
        run_line(Line(load_config(Path("more.toml"), changes)), UNTIL_SENTENCE)
    assert not Path("runs/more/05-sentence/state").exists()


def test_rows_of_both_tables_learn_behind_axes_that_stay(released):
    axes, rows, pieces, _ = former_with_pieces(released)
    line = Line(load_config(Path("more.toml"), [*ROWS, "sentence.row_bits=4"]))
    run_line(line, UNTIL_SENTENCE)
    folder = line.folder("05-sentence")
    found = load_file(folder / "lexical.safetensors")["weight"].astype(np.float32)
    assert (load_file(folder / "axes.safetensors")["weight"] == axes).all()
    learnt = np.array([re.search("[а-н]", piece) is not None for piece in pieces])
    start = rounded(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(found[~learnt], start[~learnt], rtol=1e-3)
    np.testing.assert_allclose(found, rounded(torch.from_numpy(found)).numpy(), rtol=1e-3)
    moved = np.abs(found - start).max(1) > 0.01
    assert moved.sum() > 5 and not moved[~learnt].any()
    items = Items.open(line.folder("05-items"), "train", open_targets(line), pad_id=0)
    indices = np.arange(len(items))
    wanted = unit(items.targets.vectors(items.pairs).astype(np.float32))
    bags = bags_of(piece_lists(items, indices), len(pieces))
    near = []
    for checkpoint, table in ((released, rows), (released, found), (folder, found)):
        said = pooled_vectors(load_masked_lm(checkpoint, headless=True), items, indices)
        both = np.concatenate([said, sums(table, bags)], axis=1) @ axes.T.astype(np.float32)
        near.append((unit(both) * wanted).sum(1).mean())
    assert near[2] > near[0] + 0.05 and near[1] != near[2]  # both tables have a part


def test_what_axes_leave_out_stands_behind_them(released):
    axes, rows, *_ = former_with_pieces(released)
    changes = ["sentence.steps=0", "sentence.remainder=0.5", "sentence.valid_share=1e-9"]
    line = Line(load_config(Path("more.toml"), [*ROWS[:3], *ROWS[5:7], *changes]))
    run_line(line, UNTIL_SENTENCE)
    folder = line.folder("05-sentence")
    found = load_file(folder / "axes.safetensors")["weight"]
    assert found.shape == (14, 14) and (found[:8] == axes).all()
    found = found.astype(np.float32)
    assert np.abs(axes.astype(np.float32) @ np.linalg.pinv(found[8:])).max() < 1e-2
    assert np.linalg.matrix_rank(found) == 14
    items = Items.open(line.folder("05-items"), "train", open_targets(line), pad_id=0)
    indices = np.arange(len(items))
    said = pooled_vectors(load_masked_lm(folder, headless=True), items, indices)
    both = np.concatenate(
        [said, sums(rows, bags_of(piece_lists(items, indices), len(rows)))], axis=1
    )
    held = ((both @ found.T) ** 2).mean(0)
    assert held[8:].sum() / held[:8].sum() == pytest.approx(0.25, rel=0.02)
    assert (np.diff(held[8:]) < 1e-4).all()  # the first says the most
    assert (
        read_training(folder)["metrics"] == read_training(released)["metrics"]
    )  # nothing is held out
    # A student that goes on from there has a teacher as wide.
    with pytest.raises(InputError, match="leave nothing out"):
        with_remainder(found, both, 0.5)
    Path("former/axes.safetensors").write_bytes((folder / "axes.safetensors").read_bytes())
    with pytest.raises(ConfigError, match="8 wide, expected 14"):
        run_line(Line(load_config(Path("more.toml"), [*ROWS, "run=runs/on"])), UNTIL_SENTENCE)


def test_a_student_goes_through_the_axes_of_a_former_checkpoint(released):
    """Sorted once more, its vectors are those that the former axes make of what it says."""
    axes = former_axes()
    changes = ["sentence.steps=0", "sentence.former_axes=former"]
    line = Line(load_config(Path("more.toml"), changes))
    run_line(line, UNTIL_SENTENCE)
    folder = line.folder("05-sentence")
    student = load_masked_lm(folder, headless=True)
    items = Items.open(line.folder("05-items"), "train", open_targets(line), pad_id=0)
    said = pooled_vectors(student, items, np.arange(len(items)))
    written = load_file(folder / "axes.safetensors")["weight"].astype(np.float32)
    through, exported = unit(said @ axes.T.astype(np.float32)), unit(said @ written.T)
    np.testing.assert_allclose(exported @ exported.T, through @ through.T, atol=1e-2)
    # What they are is part of what the stage follows from.
    save_file({"weight": axes * 2}, "former/axes.safetensors")
    with pytest.raises(ConfigError, match="inputs former_axes"):
        run_line(line, ["sentence"])


def test_former_axes_that_do_not_fit_are_told(tmp_path):
    with pytest.raises(InputError, match=r"axes\.safetensors: no such file"):
        copy_map(tmp_path, tmp_path, 8)
    save_file({"weight": np.zeros((8, 14), np.float16)}, tmp_path / "axes.safetensors")
    with pytest.raises(InputError, match=r"\[8, 14\], expected \[8, 8\]"):
        copy_map(tmp_path, tmp_path, 8)


def test_former_axes_have_a_place(released):
    with pytest.raises(ConfigError, match="map of its own"):
        load_config(Path("more.toml"), ["sentence.former_axes=former", "sentence.projection=map"])
    with pytest.raises(ConfigError, match="sorting"):
        changes = ["sentence.former_axes=former", "sentence.sort_dimensions=false"]
        load_config(Path("more.toml"), changes)
    with pytest.raises(ConfigError, match="axes': those of sentence.former_axes"):
        load_config(Path("more.toml"), ["sentence.projection=axes"])


def test_rows_alone_learn_behind_axes_that_stay(released):
    axes = former_axes()
    line = Line(load_config(Path("more.toml"), ROWS))
    run_line(line, UNTIL_SENTENCE)
    folder = line.folder("05-sentence")
    before, after = (
        encoder(load_masked_lm(f, headless=True)).state_dict() for f in (released, folder)
    )
    rows = "embeddings.word_embeddings.weight"
    assert all(torch.equal(before[name], after[name]) for name in before if name != rows)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pieces = [tokenizer.id_to_token(i) for i in range(len(before[rows]))]
    moved = (before[rows] != after[rows]).any(1).tolist()
    matching = [re.search("[а-н]", piece) is not None for piece in pieces]
    assert sum(moved) > 5 and not any(m and not may for m, may in zip(moved, matching, strict=True))
    assert (load_file(folder / "axes.safetensors")["weight"] == axes).all()
    items = Items.open(line.folder("05-items"), "train", open_targets(line), pad_id=0)
    indices = np.arange(len(items))
    wanted = unit(items.targets.vectors(items.pairs).astype(np.float32))
    near = []
    for checkpoint in (released, folder):
        said = pooled_vectors(load_masked_lm(checkpoint, headless=True), items, indices)
        near.append((unit(said @ axes.T.astype(np.float32)) * wanted).sum(1).mean())
    assert near[1] > near[0] + 0.05


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("sentence.weight_decay=0.01", "weight_decay = 0"),
        ("sentence.optimizer=muon", "muon"),
        ("sentence.only_rows=[a-", "no regular expression"),
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
