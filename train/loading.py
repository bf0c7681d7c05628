"""Masked language models and encoders from a directory or a hub id, and what they may lack."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForMaskedLM
from transformers.utils import logging

from rubert_lite.errors import InputError

from .hub import looks_local, refuse_missing
from .student import ARCHITECTURES, attention, output_rows

_BODY = tuple(f"{kind}." for kind in ARCHITECTURES)  # prefixes of the encoder's weights
# Parameters without which a masked language model cannot predict; transformers would make them up.
_HEAD = {
    "bert": (
        "cls.predictions.transform.dense.weight",
        "cls.predictions.transform.LayerNorm.weight",
    ),
    "distilbert": ("vocab_transform.weight", "vocab_layer_norm.weight"),
}


def load_masked_lm(
    source: str | Path, *, revision: str | None = None, headless: bool = False
) -> nn.Module:
    """Load a BERT or DistilBERT masked language model from a directory or by hub id.

    `headless`: an encoder without a masked-LM head will do; the model has one of zeros then, and
    says so in its configuration. Raises InputError when it cannot be found, is of another kind, or
    has no masked-LM head.
    """
    source = str(source)
    refuse_missing(source)
    if looks_local(source) and not (Path(source) / "config.json").is_file():
        raise InputError(f"{source}: no config.json: expected a Hugging Face model directory")
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        if config.model_type not in ARCHITECTURES:
            raise InputError(
                f"{source}: model type {config.model_type!r}, expected one of"
                f" {', '.join(ARCHITECTURES)}"
            )
        with _judged_here():
            model, info = AutoModelForMaskedLM.from_pretrained(
                source,
                revision=revision,
                output_loading_info=True,
                trust_remote_code=False,
                attn_implementation=attention(),
            )
    # RuntimeError: weights of other shapes than the configuration's.
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{source}: cannot be loaded as a model directory or hub id: {error}"
        ) from error
    lost = [k for k in info["missing_keys"] if k.startswith(_BODY) and not _unused(k)]
    if lost:
        raise InputError(
            f"{source}: {len(lost)} weights of the encoder are missing ({lost[0]}, ...): the"
            " configuration promises more than the weights hold"
        )
    absent = [k for k in _HEAD[config.model_type] if k in info["missing_keys"]]
    if headless and absent:
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name in set(parameters) & set(info["missing_keys"]):
                parameters[name].zero_()
        model.config.headless = True
    elif getattr(config, "headless", False):
        absent = [_HEAD[config.model_type][0]]
    if absent and not headless:
        raise InputError(
            f"{source}: has no masked-language-model head ({absent[0]} is missing): use the"
            " checkpoint of the pretrained model, not of a classifier or sentence encoder"
        )
    loaded: nn.Module = model
    return loaded


@contextmanager
def _judged_here() -> Iterator[None]:
    """Keep transformers from warning of missing weights: what is missing is judged here."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _unused(key: str) -> bool:
    return "pooler" in key or key.endswith("position_ids")


def start_head(model: nn.Module) -> None:
    """Give a model without a masked-LM head one that can learn: identity, norm, no bias."""
    m: Any = model
    if not getattr(m.config, "headless", False):
        return
    if m.config.model_type == "bert":
        dense, norm = m.cls.predictions.transform.dense, m.cls.predictions.transform.LayerNorm
    else:
        dense, norm = m.vocab_transform, m.vocab_layer_norm
    nn.init.eye_(dense.weight)
    nn.init.ones_(norm.weight)
    for bias in (dense.bias, norm.bias, output_rows(model)[2]):
        nn.init.zeros_(bias)
    del m.config.headless
