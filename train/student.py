"""Teachers and students: shapes, and one view of BERT and DistilBERT for the losses.

A student is a plain Hugging Face masked language model, so that every other tool can go on with it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
)

from rubert_lite.errors import ConfigError

ARCHITECTURES = ("bert", "distilbert")  # as transformers names their types


@dataclass(frozen=True)
class Shape:
    """The size of an encoder."""

    layers: int = 3  # 0: a static student, its embeddings alone
    hidden_size: int = 256
    heads: int = 4
    ffn_size: int = 768
    vocab_size: int = 16384
    max_length: int = 512
    architecture: Literal["distilbert", "bert"] = "distilbert"
    dropout: float = 0.1
    initializer_range: float = 0.02  # standard deviation of random weights

    def __post_init__(self) -> None:
        """Report every impossible size at once (ConfigError)."""
        sizes = ("layers", "hidden_size", "heads", "ffn_size", "vocab_size", "max_length")
        problems = [
            f"student.{name} = {getattr(self, name)}: expected at least {int(name != 'layers')}"
            for name in sizes
            if getattr(self, name) < int(name != "layers")
        ]
        if not problems and self.hidden_size % self.heads:
            problems.append(
                f"student.hidden_size = {self.hidden_size}: no multiple of heads = {self.heads}"
            )
        if not 0 <= self.dropout < 1:
            problems.append(f"student.dropout = {self.dropout}: expected 0 <= dropout < 1")
        if self.architecture not in ARCHITECTURES:
            problems.append(
                f"student.architecture = {self.architecture!r}: expected one of {ARCHITECTURES}"
            )
        if problems:
            raise ConfigError(problems)


def default_device() -> torch.device:
    """Return the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def attention() -> str:
    """Return the kind of attention that is fastest for short texts, by its name in transformers."""
    if default_device().type == "cpu":
        # The fused kernel's forward pass in bfloat16 with a mask took 17 times as long as plain
        # products (8 layers of 80 x 100 pieces: 708 ms against 41 ms, torch 2.13).
        return "eager"
    # cuDNN's kernel is planned anew for every shape: a step of 12 layers took 137 ms on an H200
    # where shapes change, 64 ms with the other fused kernels, 106 ms with plain products.
    torch.backends.cuda.enable_cudnn_sdp(False)
    return "sdpa"


def build(shape: Shape) -> nn.Module:
    """Make a randomly initialised masked language model of this shape (tied output matrix)."""
    common = {
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_length,
        "initializer_range": shape.initializer_range,
        "pad_token_id": 0,
        "attn_implementation": attention(),
    }
    student: nn.Module
    if shape.architecture == "bert":
        bert = BertConfig(
            hidden_size=shape.hidden_size,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=shape.ffn_size,
            hidden_dropout_prob=shape.dropout,
            attention_probs_dropout_prob=shape.dropout,
            **common,
        )
        student = BertForMaskedLM(bert)
    else:
        distilbert = DistilBertConfig(
            dim=shape.hidden_size,
            n_layers=shape.layers,
            n_heads=shape.heads,
            hidden_dim=shape.ffn_size,
            dropout=shape.dropout,
            attention_dropout=shape.dropout,
            **common,
        )
        student = DistilBertForMaskedLM(distilbert)
    return student


def count_parameters(model: nn.Module) -> int:
    """Count parameters, a tied matrix once."""
    return sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())


def hidden_size(model: nn.Module) -> int:
    """Return the width of the hidden states."""
    config: Any = model.config
    return int(config.hidden_size)


def max_length(model: nn.Module) -> int:
    """Return how many positions a model has."""
    config: Any = model.config
    return int(config.max_position_embeddings)


def freeze(model: nn.Module) -> nn.Module:
    """Make a model a teacher: no dropout, no gradients."""
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def encoder(model: nn.Module) -> nn.Module:
    """Return the encoder inside a masked language model."""
    inner: nn.Module = getattr(model, model.config.model_type)  # type: ignore[union-attr,arg-type]
    return inner


def encoder_states(
    model: nn.Module, ids: Tensor, mask: Tensor, types: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Return the hidden states [B, L, D]: of the embeddings, then of every layer.

    `types` [B, L]: 1 for the second text of a pair; DistilBERT has none and leaves them unread.
    """
    more = {}
    if types is not None and getattr(model.config, "type_vocab_size", 0) > 1:
        more["token_type_ids"] = types
    output = encoder(model)(
        input_ids=ids, attention_mask=mask.long(), output_hidden_states=True, **more
    )
    states: tuple[Tensor, ...] = output.hidden_states
    return states


def input_rows(model: nn.Module) -> Tensor:
    """Return the rows [V, D] that pieces are looked up in: of most, the output matrix, too."""
    embeddings: Any = encoder(model).embeddings
    rows: Tensor = embeddings.word_embeddings.weight
    return rows


def output_rows(model: nn.Module) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """Return the output head in parts: a transform of hidden vectors, rows [V, D], bias [V].

    logits = transform(hidden) @ rows.T + bias; so some positions or some classes can be had alone.
    """
    m: Any = model
    if m.config.model_type == "bert":
        head = m.cls.predictions
        return head.transform, head.decoder.weight, head.decoder.bias

    def transform(hidden: Tensor) -> Tensor:
        vector: Tensor = m.vocab_layer_norm(m.activation(m.vocab_transform(hidden)))
        return vector

    return transform, m.vocab_projector.weight, m.vocab_projector.bias


def repeat_positions(model: nn.Module, trained: int) -> None:
    """Give the positions from `trained` on, which no text reached, copies of trained ones.

    They repeat the last three quarters of those, over and over: the first are special to openings.
    """
    embeddings: Any = encoder(model).embeddings
    rows = embeddings.position_embeddings.weight.data
    first = trained // 4
    if first >= trained or trained >= len(rows):
        return
    sources = torch.arange(len(rows) - trained, device=rows.device) % (trained - first) + first
    rows[trained:] = rows[sources]


def mean_pooled(model: nn.Module, ids: Tensor, mask: Tensor, types: Tensor | None = None) -> Tensor:
    """Return the mean of the last hidden states over real pieces, [B, D], with a graph."""
    return mean_of(encoder_states(model, ids, mask, types)[-1], mask)


def mean_of(last: Tensor, mask: Tensor) -> Tensor:
    """Return the mean [B, D] of states [B, L, D] over real pieces."""
    weights = mask[:, :, None].to(last.dtype)
    return (last * weights).sum(1) / weights.sum(1)
