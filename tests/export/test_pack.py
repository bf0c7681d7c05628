import errno
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from export import pack
from export.__main__ import main
from export.pack import export
from export.remap import trim, write_table
from export.sample import TEXTS
from export.weights import read_weights
from rubert_lite import load
from rubert_lite.errors import InputError, PackageError
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


def test_other_broken_checkpoints_are_told(checkpoint, tmp_path):
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    save_file({k: v for k, v in tensors.items() if "sa_layer_norm" not in k}, path)
    with pytest.raises(InputError, match="no tensor 'distilbert.transformer.layer.0.sa_layer_norm"):
        read_weights(checkpoint)
    path.write_bytes(b"garbage")
    with pytest.raises(InputError, match="cannot be read"):
        read_weights(checkpoint)
    path.unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="pickled"):
        read_weights(checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    for change, message in (({"activation": "relu"}, "'relu'"), ({"model_type": "gpt2"}, "'gpt2'")):
        (checkpoint / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError, match=message):
            read_weights(checkpoint)


def test_a_full_disk_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pack, "write_card", full)
    with pytest.raises(Exception, match="(?i)disk is full|no space"):
        export(checkpoint, tmp_path / "p")
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_trimming_keeps_the_vectors_of_texts_whose_pieces_were_kept(checkpoint, tmp_path):
    kept = [i for i, p in enumerate(PIECES) if p not in ("поезд", "##ами", "слово")]
    trim(checkpoint, kept, tmp_path / "trimmed")
    models = [
        load(export(c, tmp_path / f"p{n}", variants=("fp32",)).path)
        for n, c in enumerate((checkpoint, tmp_path / "trimmed"))
    ]
    same = ["привет, мир", "лук не дом", "АБВ 123"]
    assert np.abs(models[0].encode(same) - models[1].encode(same)).max() < 1e-7
    assert models[1].tokenize("поезд") == ["[CLS]", "п", "##о", "##е", "##з", "##д", "[SEP]"]
    write_table(tmp_path / "trimmed", tmp_path / "vocab.tsv")
    rows = (tmp_path / "vocab.tsv").read_text().splitlines()
    new = models[1].package.manifest.vocab_size
    assert len(rows) == new + 1 and rows[-1] == f"{new - 1}\t{kept[-1]}\t{PIECES[kept[-1]]}"
    with pytest.raises(InputError, match="must be kept"):
        trim(checkpoint, kept[5:], tmp_path / "other")


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
def test_the_portable_graph_loads_elsewhere_and_agrees(checkpoint, tmp_path):
    from optimum.onnxruntime import ORTModelForFeatureExtraction
    from sentence_transformers import SentenceTransformer
    from transformers import AutoTokenizer

    variants = ("int8", "fp32", "portable", "safetensors", "table")
    package = export(checkpoint, tmp_path / "p", variants=variants)
    texts = ["привет, мир", "поезд на дом", "И ещё: слово!"]
    ours = load(package.path, variant="fp32").encode(texts)
    theirs = SentenceTransformer(str(package.path), device="cpu").encode(texts)
    assert np.abs(ours - theirs).max() < 1e-5
    tokenizer = AutoTokenizer.from_pretrained(package.path)
    model = ORTModelForFeatureExtraction.from_pretrained(
        package.path, subfolder="onnx", file_name="model.onnx"
    )
    inputs = tokenizer(texts, padding=True, return_tensors="np")
    states = model(**{k: inputs[k] for k in ("input_ids", "attention_mask")}).last_hidden_state
    mask = inputs["attention_mask"][:, :, None]
    pooled = (states * mask).sum(1) / mask.sum(1)
    assert np.abs(ours - pooled / np.linalg.norm(pooled, axis=1, keepdims=True)).max() < 1e-5


def test_the_command_tells_errors_in_one_line(checkpoint, tmp_path, capsys):
    assert main([str(checkpoint), "--to", str(tmp_path / "p")]) == 0
    assert "mean cosine" in capsys.readouterr().err
    assert main([str(checkpoint), "--to", str(tmp_path / "p")]) == 1
    assert "exists" in capsys.readouterr().err
    assert main([str(checkpoint), "--to", str(tmp_path / "p"), "--force", "--variants", "x"]) == 1
    assert "expected int8, fp32 or both" in capsys.readouterr().err
    assert main([str(tmp_path), "--to", str(tmp_path / "q")]) == 1
