import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from transformers import BertConfig, BertForMaskedLM, DistilBertConfig, DistilBertForMaskedLM

from rubert_lite.wordpiece import SPECIAL_PIECES, bert_tokenizer_spec

ALPHABET = "абвгдеёжзийклмнопрстуфхцчшщъыьэюяАБВГДЕЁЖЗИЙКЛМНОПРСТУФХЦЧШЩЭЮЯ0123456789.,!?-«»—:;()"
PIECES = [
    *SPECIAL_PIECES, *ALPHABET, *("##" + c for c in ALPHABET),
    "привет", "мир", "дом", "##ами", "слово", "##ть", "поезд", "лук", "не", "на", "и##",
]  # fmt: skip


def write_checkpoint(
    folder: Path,
    *,
    kind: str = "distilbert",
    hidden: int = 64,
    heads: int = 4,
    layers: int = 2,
    ffn: int = 96,
    vocab: int = len(PIECES),
    length: int = 64,
    labels: int = 0,
    task: str = "",
    types: int = 2,
    spec: dict | None = None,
) -> Path:
    """A random student whose weights are large enough that different texts differ."""
    torch.manual_seed(0)
    if kind == "bert":
        model = BertForMaskedLM(
            BertConfig(
                vocab_size=vocab, hidden_size=hidden, num_hidden_layers=layers,
                num_attention_heads=heads, intermediate_size=ffn, max_position_embeddings=length,
                initializer_range=0.1, type_vocab_size=types, layer_norm_eps=1e-5,
            )
        )  # fmt: skip
    else:
        model = DistilBertForMaskedLM(
            DistilBertConfig(
                vocab_size=vocab, dim=hidden, n_layers=layers, n_heads=heads, hidden_dim=ffn,
                max_position_embeddings=length, initializer_range=0.1,
            )
        )  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "LayerNorm" in name or "layer_norm" in name or name.endswith("bias"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer = spec or bert_tokenizer_spec(PIECES)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    if labels:
        rng = np.random.default_rng(1)
        weight = rng.normal(size=(labels, hidden)).astype(np.float32)
        save_file(
            {"weight": weight, "bias": np.ones(labels, np.float32)}, folder / "head.safetensors"
        )
        config = json.loads((folder / "config.json").read_text())
        config["id2label"] = {str(i): f"класс-{i}" for i in range(labels)}
        if task:
            config["finetuning_task"] = task
        (folder / "config.json").write_text(json.dumps(config, ensure_ascii=False))
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint")
