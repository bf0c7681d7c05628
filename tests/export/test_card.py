"""The model card: what it says, and what it does not."""

import json

import pytest
import yaml

from export.pack import export
from rubert_lite.errors import InputError
from tests.export.conftest import write_checkpoint

TRAINING = {
    "teacher": "none",
    "license": "Apache-2.0",
    "corpora": [{"name": "сказки", "license": "CC0", "texts": 1234}],
    "config": {"vocabulary": {"method": "prune", "tokenizer": "folder/of/pieces"}},
    "sentence_stage": False,
    "lineage": [],
    "metrics": {"mlm": 1.5, "parity": "not ours"},
}


def test_the_card_says_what_taught_the_model_and_what_it_is_not(checkpoint, tmp_path):
    (checkpoint / "training.json").write_text(json.dumps(TRAINING), encoding="utf-8")
    (checkpoint / "LICENSE").write_text("the licence")
    notes = "## Scores\n\nPoor.\n"
    package = export(checkpoint, tmp_path / "p", notes=notes, languages=["ru", "no"])
    head, _, body = (package.path / "README.md").read_text("utf-8")[4:].partition("\n---\n")
    assert yaml.safe_load(head) == {
        "language": ["ru", "no"],
        "license": "apache-2.0",
        "library_name": "rubert-lite",
        "pipeline_tag": "sentence-similarity",
        "tags": ["onnx", "sentence-embeddings", "russian", "distillation"],
    }
    for said in (
        "Teacher: none.",
        "method 'prune' from that of pieces.",
        "not a sentence encoder",
        "No RuBERT weights were used.",
        "| сказки | CC0 | text | 1,234 |",
        f"| fast.int8.onnx | {(package.path / 'fast.int8.onnx').stat().st_size / 1e6:.2f} |",
        "| int8 | ",
        'load("p")',
        "\n\n## Scores\n\nPoor.\n\n## Training text\n",
    ):
        assert said in body
    manifest = package.manifest
    assert manifest.provenance == TRAINING
    assert manifest.metrics["mlm"] == 1.5 and "int8" in manifest.metrics["parity"]
    assert (package.path / "LICENSE").read_text() == "the licence"


def test_the_card_of_a_trained_vocabulary_names_no_other(checkpoint, tmp_path):
    vocabulary = {"method": "train", "tokenizer": "folder/of/pieces"}
    training = TRAINING | {"config": {"vocabulary": vocabulary}}
    (checkpoint / "training.json").write_text(json.dumps(training), encoding="utf-8")
    card = (export(checkpoint, tmp_path / "p").path / "README.md").read_text("utf-8")
    assert "Vocabulary: WordPiece, trained on the texts below." in card and "pieces." not in card


@pytest.mark.parametrize("teacher", [None, "sberbank-ai/ruBert-base", "cointegrated/rubert-tiny2"])
def test_the_card_claims_nothing_that_is_not_known(checkpoint, tmp_path, teacher):
    training = {"sentence_stage": True} | ({"teacher": teacher} if teacher else {})
    (checkpoint / "training.json").write_text(json.dumps(training), encoding="utf-8")
    card = (export(checkpoint, tmp_path / "p").path / "README.md").read_text("utf-8")
    assert "No RuBERT" not in card and "not a sentence encoder" not in card
    assert "Not recorded." in card and f"Teacher: {teacher or 'unknown'}." in card


def test_the_card_says_which_rounded_weights_a_model_began_with(checkpoint, tmp_path):
    training = TRAINING | {"began_with": "read from the graph int4 of q, rounded as it is"}
    (checkpoint / "training.json").write_text(json.dumps(training), encoding="utf-8")
    card = (export(checkpoint, tmp_path / "p").path / "README.md").read_text("utf-8")
    assert "from weights read from the graph int4 of q" in card and "Weights: " not in card


@pytest.mark.parametrize(
    ("lineage", "said"),
    [
        (["teacher", "DeepPavlov/rubert-base-cased"], False),
        (["conversational", "unknown"], False),
        (["all-MiniLM-L6-v2", "none (pretrained)"], True),
        (None, False),
    ],
)
def test_the_card_speaks_of_the_whole_lineage(checkpoint, tmp_path, lineage, said):
    training = TRAINING | {"lineage": lineage}
    (checkpoint / "training.json").write_text(json.dumps(training), encoding="utf-8")
    card = (export(checkpoint, tmp_path / "p").path / "README.md").read_text("utf-8")
    assert ("No RuBERT weights were used." in card) is said


@pytest.mark.parametrize("code", ["russian", "RU", "ру", "", "r]"])
def test_languages_are_codes(checkpoint, tmp_path, code):
    with pytest.raises(InputError, match=r"expected a code of ISO 639-1 such as ru or en"):
        export(checkpoint, tmp_path / "p", languages=["ru", code])
    with pytest.raises(InputError, match="language ''"):
        export(checkpoint, tmp_path / "p", languages=[])
    assert not (tmp_path / "p").exists()


def test_the_card_calls_a_classifier_as_it_reads(tmp_path):
    for inputs, call in (("texts", '(["Спасибо!"])'), ("pairs", '([("Анна живёт'), ("", '(["Сп')):
        folder = write_checkpoint(tmp_path / f"c{inputs}", labels=3)
        config = json.loads((folder / "config.json").read_text()) | {"tuned_inputs": inputs}
        (folder / "config.json").write_text(json.dumps(config))
        package = export(folder, tmp_path / f"p{inputs}")
        assert "model.classify" + call in (package.path / "README.md").read_text("utf-8")
