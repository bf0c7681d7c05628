"""A sentence stage that goes on from a released encoder, which has no masked-LM head."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import DistilBertConfig, DistilBertModel

from rubert_lite.errors import ConfigError
from train import line_sentence
from train.axes import nearest_rotation, pooled_vectors
from train.config import load_config
from train.folders import Line
from train.items import Items, find_rotation
from train.learnt_axes import unit
from train.line import run_line
from train.line_vectors import open_targets
from train.loading import load_masked_lm
from train.student import encoder, mean_pooled
from train.targets import ridge

from .toy_released import MORE, UNTIL_SENTENCE, mixed


def load_config_json(folder):
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def test_a_released_encoder_learns_on(released):
    line = Line(load_config(Path("more.toml")))
    run_line(line, UNTIL_SENTENCE)
    assert not line.folder("04-student").exists()
    before, after = DistilBertModel.from_pretrained(released), line.folder("05-sentence")
    ids, mask = torch.tensor([[2, 9, 11, 3]]), torch.ones(1, 4, dtype=torch.bool)
    now = mean_pooled(load_masked_lm(after).eval(), ids, mask)
    was = before.eval()(input_ids=ids).last_hidden_state.mean(1)
    torch.testing.assert_close(now, was, atol=1e-2, rtol=0)  # a step at 1e-5
    assert not torch.equal(now, was)
    training = json.loads((after / "training.json").read_text(encoding="utf-8"))
    assert [c["name"] for c in training["corpora"]] == ["words", "pairs"]  # once each
    axes = load_file(after / "axes.safetensors")["weight"].astype(np.float32)
    assert np.allclose(axes @ axes.T, np.eye(len(axes)), atol=0.01)
    told = training["metrics"]["sentence"]
    assert told["held_4_after"] >= told["held_4_before"] > 0


def test_a_share_of_the_first_weights_can_stay(released):
    """Two equal runs, one of which keeps half of what it began with."""
    whole = Line(load_config(Path("more.toml")))
    half = Line(load_config(Path("more.toml"), ["run=runs/half", mixed(("released", 0.5))]))
    for line in (whole, half):
        run_line(line, UNTIL_SENTENCE)
    first = DistilBertModel.from_pretrained(released).state_dict()
    after, kept = (
        encoder(load_masked_lm(line.folder("05-sentence"))).state_dict() for line in (whole, half)
    )
    name = "transformer.layer.0.attention.q_lin.weight"
    assert not torch.equal(after[name], first[name])
    torch.testing.assert_close(kept[name], (after[name] + first[name]) / 2, atol=1e-7, rtol=0)
    told = [
        json.loads((line.folder("05-sentence") / "training.json").read_text(encoding="utf-8"))
        for line in (whole, half)
    ]
    scores = [t["metrics"]["sentence"]["cosine"] for t in told]
    assert scores[0] != scores[1]  # judged as it is kept


def test_shares_can_be_of_other_weights(released):
    """Of checkpoints that are not the one that learns on, but of its shape; or without a step."""
    other = shutil.copytree(released, "other")
    weights = load_file(f"{other}/model.safetensors")
    name = "transformer.layer.0.attention.q_lin.weight"
    save_file({**weights, name: weights[name] + 1}, f"{other}/model.safetensors", {"format": "pt"})
    changes = ["run=runs/mixed", mixed(("other", 0.25), ("released", 0.125))]
    still = [*changes, "run=runs/still", "sentence.steps=0"]
    lines = [Line(load_config(Path("more.toml"), c)) for c in ([], changes, still)]
    for line in lines:
        run_line(line, UNTIL_SENTENCE)
    folders = (line.folder("05-sentence") for line in lines)
    models = (load_masked_lm(f, headless=True) for f in folders)
    after, both, none = (encoder(m).state_dict()[name].numpy() for m in models)
    before = weights[name]
    np.testing.assert_allclose(both, 0.625 * after + 0.375 * before + 0.25, atol=1e-6)
    np.testing.assert_allclose(none, before + 0.25, atol=1e-6)
    configs = [load_config_json(line.folder("05-sentence")) for line in lines]
    assert [c.get("headless", False) for c in configs] == [False, False, True]  # nothing learnt it
    told = json.loads((lines[2].folder("05-sentence") / "training.json").read_text("utf-8"))
    assert "mlm" not in told["metrics"]["sentence"]
    save_file(weights, f"{other}/model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match="inputs mix"):
        run_line(Line(load_config(Path("more.toml"), changes)), ["sentence"])


def test_a_map_behind_the_student_ends_in_its_axes(released):
    """Fitted to the weights that are kept, and written into the axes before they are sorted."""
    changes = ["run=runs/behind", mixed(("released", 0.5)), "sentence.projection=map"]
    line = Line(load_config(Path("more.toml"), changes))
    run_line(line, UNTIL_SENTENCE)
    folder = line.folder("05-sentence")
    student = load_masked_lm(folder, headless=True)
    items = Items.open(line.folder("05-items"), "train", open_targets(line), pad_id=0)
    rows = np.arange(len(items))
    said = pooled_vectors(student, items, rows)
    behind, rotation = np.load(folder / "map.npy"), np.load(folder / "rotation.npy")
    targets = unit(items.targets.vectors(items.pairs[rows]).astype(np.float32) @ rotation)
    np.testing.assert_allclose(behind, ridge(said, targets), atol=1e-2)
    axes = load_file(folder / "axes.safetensors")["weight"].astype(np.float32)
    mapped, exported = unit(said @ behind), unit(said @ axes.T)
    np.testing.assert_allclose(exported @ exported.T, mapped @ mapped.T, atol=1e-2)
    assert (targets * mapped).sum(1).mean() > (targets * unit(said)).sum(1).mean()


def test_what_cannot_be_mixed_is_told_before_a_step(released):
    for shares, words in {(("a", 0.5), ("b", 0.5)): "1 in all", (("a", 0.0),): "greater"}.items():
        with pytest.raises(ConfigError, match=words):
            load_config(Path("more.toml"), [mixed(*shares)])
    other = shutil.copytree(released, Path("other"))
    weights = load_file(other / "model.safetensors")
    name = "embeddings.position_embeddings.weight"
    shorter = {**weights, name: weights[name][:-1]}
    save_file(shorter, other / "model.safetensors", {"format": "pt"})
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    config["max_position_embeddings"] -= 1
    (other / "config.json").write_text(json.dumps(config), encoding="utf-8")
    line = Line(load_config(Path("more.toml"), [mixed(("other", 0.5))]))
    with pytest.raises(ConfigError, match="other is of another shape than released"):
        run_line(line, UNTIL_SENTENCE)
    assert not list(line.folder("05-sentence").parent.glob("*05-sentence*/metrics.jsonl"))


def test_other_pieces_are_told(released):
    text = MORE.replace('method = "full"\ntokenizer = "released"\n', "size = 50\n")
    Path("more.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r'vocabulary.tokenizer = "released".*new_pieces'):
        run_line(Line(load_config(Path("more.toml"))), UNTIL_SENTENCE)


THIRD = """
base = "first.toml"
run = "runs/third"
[sentence]
source = "runs/second/05-sentence"
learning_rate = 1e-5
"""


def test_positions_that_were_trained_before_stay(released):
    """The first line read 16 pieces, this one reads 8."""
    changes = ["sentence.max_length=8", "sentence.prefixes=[]", "shards.max_length=8"]
    line = Line(load_config(Path("more.toml"), changes))
    run_line(line, UNTIL_SENTENCE)
    name = "embeddings.position_embeddings.weight"
    rows = encoder(load_masked_lm(line.folder("05-sentence"))).state_dict()[name]
    was = DistilBertModel.from_pretrained(released).state_dict()[name]
    torch.testing.assert_close(rows[8:16], was[8:16], atol=1e-3, rtol=0)
    training = json.loads((line.folder("05-sentence") / "training.json").read_text())
    assert training["trained_length"] == 16


def test_states_of_unlike_widths_are_not_compared(released, tmp_path):
    student, teacher = (
        DistilBertModel(DistilBertConfig(vocab_size=60, dim=d, hidden_dim=8, n_layers=1, n_heads=1))
        for d in (8, 16)
    )
    config = load_config(Path("first.toml"), ["distil.hidden=1.0"])
    with pytest.raises(ConfigError, match="the student is 8 wide, its teacher 16"):
        line_sentence._comparable_states(Line(config), student, teacher)


def test_who_learns_on_keeps_to_its_space(released):
    Path("second.toml").write_text('base = "first.toml"\nrun = "runs/second"\n', encoding="utf-8")
    Path("third.toml").write_text(THIRD, encoding="utf-8")
    second, third = (Line(load_config(Path(f"{n}.toml"))) for n in ("second", "third"))
    run_line(second, UNTIL_SENTENCE)
    file = second.folder("05-sentence") / "rotation.npy"
    turned = np.load(file)[:, ::-1].copy()  # another space than the vectors themselves would give
    np.save(file, turned)
    run_line(third, UNTIL_SENTENCE)
    assert (np.load(third.folder("05-sentence") / "rotation.npy") == turned).all()
    # Evened targets have other axes, and what was behind a map said something else.
    evened = Line(load_config(Path("third.toml"), ["run=runs/evened", "sentence.whitening=0.5"]))
    run_line(evened, UNTIL_SENTENCE)
    other = np.load(evened.folder("05-sentence") / "rotation.npy")
    lengths = np.linalg.norm(other, axis=0)
    assert lengths.min() > 1.01 and not np.allclose(other / lengths, turned, atol=0.1)
    np.save(file.with_name("map.npy"), np.eye(len(turned.T), dtype=np.float32))
    behind = Line(load_config(Path("third.toml"), ["run=runs/behind"]))
    run_line(behind, UNTIL_SENTENCE)
    assert not np.allclose(np.load(behind.folder("05-sentence") / "rotation.npy"), turned, atol=0.1)


def test_the_space_of_a_package_is_found_by_its_vectors(released):
    """It has no rotation.npy; what was never taught sentences is in no space to keep."""
    line = Line(load_config(Path("more.toml")))
    run_line(line, UNTIL_SENTENCE)
    items = Items.open(line.folder("05-items"), "train", open_targets(line), pad_id=0)
    found = np.load(line.folder("05-sentence") / "rotation.npy")
    near = nearest_rotation(load_masked_lm(released, headless=True), items, seed=42)
    np.testing.assert_allclose(found, near, atol=1e-5)
    own = find_rotation(items.targets, near.shape[1], seed=42)
    assert np.abs(near - own).max() > 0.1
    told = json.loads((released / "training.json").read_text(encoding="utf-8"))
    del told["config"]["sentence"]
    (released / "training.json").write_text(json.dumps(told), encoding="utf-8")
    run_line(Line(load_config(Path("more.toml"), ["run=runs/untaught"])), UNTIL_SENTENCE)
    found = np.load("runs/untaught/05-sentence/rotation.npy")
    np.testing.assert_allclose(found, own, atol=1e-5)


def test_a_package_learns_on_by_its_manifest(released):
    """`rubert-lite export --variants safetensors` writes no training.json."""
    made = Path("released/training.json")
    manifest = {"provenance": json.loads(made.read_text(encoding="utf-8"))}
    made.unlink()
    Path("released/manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    line = Line(load_config(Path("more.toml")))
    run_line(line, UNTIL_SENTENCE)
    training = json.loads((line.folder("05-sentence") / "training.json").read_text())
    assert [c["name"] for c in training["corpora"]] == ["words", "pairs"]
