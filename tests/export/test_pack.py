import errno
import json
from hashlib import sha256

import numpy as np
import onnx
import pytest
from safetensors.numpy import save_file

from export import pack
from export.__main__ import main
from export.pack import export
from export.sample import TEXTS
from rubert_lite import load
from rubert_lite.errors import InputError, PackageError, RubertLiteError
from rubert_lite.package import ModelPackage
from rubert_lite.wordpiece import bert_tokenizer_spec, map_tokenizer
from tests.export.conftest import PIECES, write_checkpoint


def test_a_package_holds_what_runs_and_nothing_else(checkpoint, tmp_path):
    package = export(checkpoint, tmp_path / "student")
    assert sorted(p.name for p in package.path.iterdir()) == [
        "README.md",
        "config.json",
        "fast.int8.onnx",
        "manifest.json",
        "tokenizer.json",
    ]
    manifest = package.manifest
    assert (manifest.name, manifest.vocab_size, manifest.default_variant) == (
        "student",
        len(PIECES),
        "int8",
    )
    parity = manifest.metrics["parity"]["int8"]
    assert parity["mean_cosine"] >= 0.999 and parity["cases"] == len(TEXTS) + 3
    assert manifest.task == "embedding" and not manifest.labels
    vectors = load(package.path).encode(["привет, мир", ""])
    assert vectors.shape == (2, 64)


def test_the_first_variant_is_the_default(checkpoint, tmp_path):
    package = export(checkpoint, tmp_path / "p", variants=("fp32", "int8"))
    assert package.manifest.default_variant == "fp32"
    vectors = [load(package.path, variant=v).encode(list(TEXTS)) for v in ("fp32", "int8")]
    assert 0.99 < (vectors[0] * vectors[1]).sum(1).min() < 1


def test_a_head_gives_a_package_that_classifies(tmp_path):
    folder = write_checkpoint(tmp_path / "c", labels=3)
    model = load(export(folder, tmp_path / "p").path)
    assert model.labels == ("класс-0", "класс-1", "класс-2")
    assert model.package.manifest.task == "classification"
    assert model.package.manifest.metrics["parity"]["int8"]["logits_difference"] < 1
    found = model.classify(["привет", "дом"])
    assert all(abs(sum(p.scores.values()) - 1) < 1e-5 for p in found)


def test_a_graph_that_does_not_follow_torch_is_refused_by_name(checkpoint, tmp_path, monkeypatch):
    """Rows in another order: what a wrong remapping of ids does."""

    def broken(weights, **options):
        object.__setattr__(weights, "pieces", np.roll(weights.pieces, 1, axis=0))
        return pack_build(weights, **options)

    pack_build = pack.build
    monkeypatch.setattr(pack, "build", broken)
    with pytest.raises(PackageError, match=r"cosine -?0\.\d+ with torch for text \d+ \('"):
        export(checkpoint, tmp_path / "p")
    assert list(tmp_path.glob("*p*")) == [checkpoint]


def test_an_error_in_the_last_row_is_found(checkpoint, tmp_path, monkeypatch):
    """Dummy zeros would never see it; the highest ids are among the cases."""
    pack_build = pack.build

    def broken(weights, **options):
        rows = weights.pieces.copy()
        rows[-1] = -5 * rows[-1]
        object.__setattr__(weights, "pieces", rows)
        return pack_build(weights, **options)

    monkeypatch.setattr(pack, "build", broken)
    with pytest.raises(PackageError, match="the highest ids"):
        export(checkpoint, tmp_path / "p")


def test_pieces_that_share_a_row_are_exported(tmp_path):
    spec = bert_tokenizer_spec(PIECES)
    new_ids = [min(i, len(PIECES) - 6) for i in range(len(PIECES))]
    folder = write_checkpoint(
        tmp_path / "c", vocab=len(PIECES) - 5, spec=map_tokenizer(spec, new_ids)
    )
    vectors = load(export(folder, tmp_path / "p").path).encode(["поезд", "лук", "мир"])
    assert np.abs(vectors[0] - vectors[1]).max() == 0  # both look up the last row
    assert np.abs(vectors[0] - vectors[2]).max() > 0


def test_a_foreign_tokenizer_is_refused(checkpoint, tmp_path):
    spec = bert_tokenizer_spec([*PIECES, "лишний"])
    (checkpoint / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False))
    with pytest.raises(PackageError, match="the model has only"):
        export(checkpoint, tmp_path / "p")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "config.json: cannot be read"),
        ("model.safetensors", "model.safetensors: cannot be read"),
        ("tokenizer.json", "expected the tokenizer"),
    ],
)
def test_missing_files_are_told(checkpoint, tmp_path, name, message):
    (checkpoint / name).unlink()
    with pytest.raises(InputError, match=message):
        export(checkpoint, tmp_path / "p")


@pytest.mark.parametrize("step", ["build", "write_table", "write_card", "seal"])
def test_a_full_disk_leaves_nothing(checkpoint, tmp_path, monkeypatch, step):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pack, step, full)
    with pytest.raises(InputError, match="the disk is full; nothing was written"):
        export(checkpoint, tmp_path / "p", variants=("int8", "table"))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_failed_replacement_leaves_the_old_package(checkpoint, tmp_path, monkeypatch, error):
    before = export(checkpoint, tmp_path / "p", name="old").manifest

    def stop(*_, **__):
        raise error

    monkeypatch.setattr(pack, "seal", stop)
    with pytest.raises(error):
        export(checkpoint, tmp_path / "p", name="new", replace=True)
    assert ModelPackage.open(tmp_path / "p").manifest == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint", "p"]


def test_each_graph_says_what_it_is(checkpoint, tmp_path):
    training = {"teacher": "учитель", "license": "Apache-2.0"}
    (checkpoint / "training.json").write_text(json.dumps(training), encoding="utf-8")
    package = export(
        checkpoint, tmp_path / "p", name="имя", variants=("int8", "fp32", "int8-turbo")
    )
    digest = sha256((package.path / "tokenizer.json").read_bytes()).hexdigest()
    for variant in ("int8", "fp32", "int8-turbo"):
        graph = onnx.load(package.path / f"fast.{variant}.onnx", load_external_data=False)
        assert {p.key.partition(".")[2]: p.value for p in graph.metadata_props} == {
            "name": "имя",
            "tokenizer_sha256": digest,
            "vocab_size": str(len(PIECES)),
            "variant": variant,
            "pooling": "mean",
            "batch_independent": "false" if variant == "int8-turbo" else "true",
            "teacher": "учитель",
            "license": "Apache-2.0",
        }
        assert [o.name for o in graph.graph.output] == ["pooled", "sentence_embedding"]


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ("[]", "expected an object"),
        ("{", "not JSON"),
        ('{"license": 3, "corpora": {}}', "license is no str; corpora is no list"),
        ('{"corpora": [{"name": "x", "license": "y"}]}', "expected name, license and number"),
        ('{"metrics": {"loss": NaN}}', "finite"),
    ],
)
def test_a_broken_training_record_is_told(checkpoint, tmp_path, training, message):
    (checkpoint / "training.json").write_text(training)
    with pytest.raises(RubertLiteError, match=message):
        export(checkpoint, tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_shorter_vectors_are_offered_down_to_64(tmp_path):
    for hidden, expected in ((64, ()), (128, (64,)), (264, (132, 66)), (512, (256, 128, 64))):
        folder = write_checkpoint(tmp_path / f"c{hidden}", hidden=hidden, layers=1)
        assert export(folder, tmp_path / f"p{hidden}").manifest.truncate_dims == expected


def test_of_vectors_wider_than_the_states_those_as_wide_are_offered(tmp_path):
    folder = write_checkpoint(tmp_path / "c", hidden=128, layers=1)
    axes = np.random.default_rng(1).normal(size=(192, 128)).astype(np.float16)
    save_file({"weight": axes}, folder / "axes.safetensors")
    package = export(folder, tmp_path / "p")
    assert package.manifest.hidden_size == 192 and package.manifest.truncate_dims == (128, 64)
    assert load(package.path).encode(["кот"], truncate_dim=128).shape == (1, 128)


def test_labels_must_be_those_of_the_head(tmp_path):
    folder = write_checkpoint(tmp_path / "c", labels=3)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"].pop("2")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="the head has 3 labels"):
        export(folder, tmp_path / "p")


@pytest.mark.parametrize("name", ["две\nстроки", "\x00"])
def test_a_name_is_one_line(checkpoint, tmp_path, name):
    with pytest.raises(InputError, match="one line"):
        export(checkpoint, tmp_path / "p", name=name)


def test_the_command_tells_errors_in_one_line(checkpoint, tmp_path, capsys):
    assert main([str(checkpoint), "--to", str(tmp_path / "p")]) == 0
    assert "mean cosine" in capsys.readouterr().err
    assert main([str(checkpoint), "--to", str(tmp_path / "p")]) == 1
    assert "exists" in capsys.readouterr().err
    assert main([str(checkpoint), "--to", str(tmp_path / "p"), "--force", "--variants", "x"]) == 1
    assert "expected one or more of int8, fp32, int8-turbo" in capsys.readouterr().err
    assert main([str(checkpoint), "--to", str(tmp_path / "p"), "--force", "--name", "new"]) == 0
    assert ModelPackage.open(tmp_path / "p").manifest.name == "new"
    assert main([str(tmp_path), "--to", str(tmp_path / "q")]) == 1
    (tmp_path / "file").write_text("")
    capsys.readouterr()
    assert main([str(checkpoint), "--to", str(tmp_path / "file" / "p")]) == 1
    assert capsys.readouterr().err.startswith("rubert-lite export: ")
