"""A sentence stage behind the axes of a former checkpoint, in which rows alone may learn."""

import re
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
from train.former import open_former
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

from .toy_former import ROWS, former_axes, former_with_pieces
from .toy_released import UNTIL_SENTENCE


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
    # A student that goes on from there has a teacher as wide, and nothing left out.
    Path("former/axes.safetensors").write_bytes((folder / "axes.safetensors").read_bytes())
    on = Line(load_config(Path("more.toml"), [*ROWS, "run=runs/on", "sentence.remainder=0.5"]))
    with pytest.raises(ConfigError) as told:
        run_line(on, UNTIL_SENTENCE)
    assert [
        re.sub(r".*(8 wide, expected 14|14 of 14).*", r"\1", p) for p in told.value.problems
    ] == [
        "8 wide, expected 14",
        "14 of 14",
    ]
    assert not list(on.folder("05-sentence").parent.glob("*05-sentence*/state"))  # before a step


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
