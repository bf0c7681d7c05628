"""Models from directories: what they may lack, and what is refused."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    BertModel,
    DistilBertModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from rubert_lite.errors import InputError
from train.loading import load_masked_lm, start_head
from train.student import freeze, hidden_size, mean_pooled, output_rows

from .toy_student import V, logits, shaken, small


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_saved_model_loads_with_equal_logits(architecture: str, tmp_path: Path) -> None:
    model = shaken(small(architecture))
    model.save_pretrained(tmp_path)
    loaded = freeze(load_masked_lm(tmp_path))
    assert torch.equal(logits(loaded), logits(model))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def without_head(model: nn.Module) -> Any:
    return (
        DistilBertModel(model.config) if "distil" in str(type(model)) else BertModel(model.config)
    )


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_encoder_without_a_head_will_do_where_none_is_used(
    architecture: str, tmp_path: Path
) -> None:
    without_head(small(architecture)).save_pretrained(tmp_path / "encoder")
    found: Any = load_masked_lm(tmp_path / "encoder", headless=True)
    transform, _, _ = output_rows(found)
    assert not transform(torch.randn(2, hidden_size(found))).any()
    found.save_pretrained(tmp_path / "saved")
    with pytest.raises(InputError, match="no masked-language-model head"):
        load_masked_lm(tmp_path / "saved")  # zeros are no head, either
    again = load_masked_lm(tmp_path / "saved", headless=True)
    ids, mask = torch.tensor([[2, 5, 3]]), torch.ones(1, 3, dtype=torch.bool)
    assert torch.equal(mean_pooled(found.eval(), ids, mask), mean_pooled(again.eval(), ids, mask))


def test_transformers_does_not_warn_of_what_is_judged_here(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    without_head(small()).save_pretrained(tmp_path)
    logger = logging.getLogger("transformers")  # its records do not reach the root
    logger.addHandler(caplog.handler)
    try:
        load_masked_lm(tmp_path, headless=True)
        assert not caplog.records
        AutoModelForMaskedLM.from_pretrained(tmp_path)
        assert "newly initialized" in caplog.text  # where nobody judges
    finally:
        logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_a_new_head_is_one_that_can_learn(architecture: str, tmp_path: Path) -> None:
    without_head(small(architecture)).save_pretrained(tmp_path)
    model: Any = load_masked_lm(tmp_path, headless=True)
    start_head(model)
    transform, rows, bias = output_rows(model)
    found = transform(torch.randn(3, hidden_size(model)))
    loss = torch.nn.functional.cross_entropy(found @ rows.T + bias, torch.tensor([7, 8, 9]))
    loss.backward()
    head = [p for n, p in model.named_parameters() if n.startswith(("vocab_", "cls."))]
    assert len(head) >= 5 and all(p.grad is not None and p.grad.any() for p in head)
    assert not hasattr(model.config, "headless")


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_encoder_without_a_head_is_refused(architecture: str, tmp_path: Path) -> None:
    without_head(small(architecture)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no masked-language-model head"):
        load_masked_lm(tmp_path)


def test_missing_directory_and_other_model_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_masked_lm(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no config.json"):
        load_masked_lm(tmp_path)
    BertConfig(vocab_size=V).save_pretrained(tmp_path / "empty")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_masked_lm(tmp_path / "empty")
    config = RobertaConfig(vocab_size=V, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    RobertaForMaskedLM(config).save_pretrained(tmp_path / "roberta")
    with pytest.raises(InputError, match="'roberta', expected one of bert, distilbert"):
        load_masked_lm(tmp_path / "roberta")


def test_broken_weights_are_refused(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x08" * 100)
    with pytest.raises(InputError, match="cannot be loaded as a model directory"):
        load_masked_lm(tmp_path)


class Trap:
    """A pickle that creates a file when it is loaded as code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_pickled_weights_load_but_pickled_code_does_not_run(tmp_path: Path) -> None:
    model = shaken(small())
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert torch.equal(logits(freeze(load_masked_lm(tmp_path))), logits(model))
    torch.save({"x": Trap(tmp_path / "ran")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError):
        load_masked_lm(tmp_path)
    assert not (tmp_path / "ran").exists()
