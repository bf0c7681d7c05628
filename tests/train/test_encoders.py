"""Sentence encoders that teach: what is read without sentence-transformers, and in whose space."""

import json
import sys

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from tests.train.conftest import wordpiece
from train import encoders
from train.encoders import _mean_pooled_length, _open_mean_pooled, open_encoder

TEXTS = ["привет мир", "дом", "", "мир " * 40]


@pytest.fixture
def folder(tmp_path):
    """A small sentence encoder as sentence-transformers stores it."""
    torch.manual_seed(0)
    spec = wordpiece("привет", "мир", "дом")
    size = len(spec["model"]["vocab"])
    config = BertConfig(
        vocab_size=size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    kinds = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(kinds)
    ]
    (tmp_path / "1_Pooling").mkdir()
    for name, data in (
        ("modules.json", modules),
        (
            "1_Pooling/config.json",
            {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True},
        ),
        ("sentence_bert_config.json", {"max_seq_length": 12}),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"},
        ),
    ):
        (tmp_path / name).write_text(json.dumps(data), encoding="utf-8")
    return tmp_path


@pytest.fixture(params=[False, True], ids=["fp32", "bf16"])
def half(request, monkeypatch):
    """Of processors, some multiply in half precision."""
    monkeypatch.setattr(encoders, "multiplies_bfloat16", lambda _: request.param)
    return request.param


def test_a_mean_pooled_bert_gives_the_vectors_of_sentence_transformers(folder, monkeypatch):
    monkeypatch.setattr(encoders, "multiplies_bfloat16", lambda _: False)
    assert _mean_pooled_length(folder) == 12
    found = _open_mean_pooled(folder, 12)(TEXTS)
    expected = open_encoder(str(folder))(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    monkeypatch.setattr(encoders, "multiplies_bfloat16", lambda _: True)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # is not needed
    rounded = open_encoder(str(folder))(TEXTS)
    assert 1e-5 < np.abs(rounded - expected).max() < 0.02


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}),
        (
            "1_Pooling/config.json",
            {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
        ),
        ("modules.json", [{"type": "a.Transformer"}, {"type": "a.Pooling"}, {"type": "a.Dense"}]),
        ("modules.json", {"not": "a list"}),
        ("sentence_bert_config.json", {}),
        ("config.json", {"model_type": "xlm-roberta"}),
    ],
)
def test_other_encoders_are_left_to_sentence_transformers(folder, file, data):
    (folder / file).write_text(json.dumps(data), encoding="utf-8")
    assert _mean_pooled_length(folder) == 0


def test_a_student_answers_in_the_space_of_its_teacher(folder, half):
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(24, 16)))[0].astype(np.float32)
    np.save(folder / "rotation.npy", rotation)
    training = {"config": {"sentence": {"max_length": 12}}}
    (folder / "training.json").write_text(json.dumps(training), encoding="utf-8")
    own = _open_mean_pooled(folder, 12)(TEXTS)
    np.testing.assert_allclose(open_encoder(str(folder))(TEXTS), own @ rotation.T, atol=1e-5)
    scales = np.linspace(1, 3, 16, dtype=np.float32)  # as an evened rotation has them
    np.save(folder / "rotation.npy", rotation * scales)
    wanted = (own / scales) @ rotation.T
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(open_encoder(str(folder))(TEXTS), wanted, atol=1e-5)
