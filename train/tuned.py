"""A model with a task head, in training and as a teacher."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from rubert_lite.engine import Batch
from rubert_lite.errors import InputError
from rubert_lite.manifest import PIECEWISE
from rubert_lite.pieces import PieceReader

from .batches import pad_ids
from .heads import Row
from .loading import load_masked_lm
from .student import default_device, encoder_states, hidden_size, max_length, mean_of


class Tuned:
    """An encoder with a head; a Runner, so that it is judged by the code that will run it."""

    def __init__(
        self,
        model: nn.Module,
        head: nn.Linear,
        task: str,
        labels: tuple[str, ...],
        max_length: int,
        inputs: str = "",
    ) -> None:
        """Put a masked language model's encoder and a head together; `inputs` as of a Kind."""
        self.model, self.head, self.task = model, head, task
        self.labels, self.max_length, self.inputs = labels, max_length, inputs
        self.on_pieces = task in PIECEWISE

    def logits(self, ids: Tensor, mask: Tensor, types: Tensor, dropout: float = 0.0) -> Tensor:
        """Return logits [B, labels], or [B, L, labels] of a task on pieces."""
        states = encoder_states(self.model, ids, mask, types)[-1].float()
        judged = states if self.on_pieces else mean_of(states, mask)
        return self.from_features(judged, dropout)

    @property
    def device(self) -> torch.device:
        """Where the head is, and the model with it."""
        return self.head.weight.device

    def from_features(self, judged: Tensor, dropout: float = 0.0) -> Tensor:
        """Return the logits of pooled vectors or states."""
        found: Tensor = self.head(nn.functional.dropout(judged, dropout, training=dropout > 0))
        return found

    @torch.no_grad()
    def run_all(
        self, batches: Iterable[Batch], output: str
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield the logits of each batch; see Runner."""
        assert output == "logits"
        self.model.eval()
        for batch in batches:
            ids = torch.from_numpy(batch.feeds["input_ids"]).to(self.device)
            types = torch.from_numpy(batch.feeds["token_type_ids"]).to(self.device)
            found = self.logits(ids, torch.ones_like(ids).bool(), types)
            yield batch.indices, found.cpu().numpy()


def load_tuned(checkpoint: Path) -> Tuned:
    """Load what `finetune` wrote."""
    head_file = checkpoint / "head.safetensors"
    if not head_file.is_file():
        raise InputError(f"{head_file}: no such file: expected a checkpoint that was fine-tuned")
    model = load_masked_lm(checkpoint, headless=True).eval()
    tensors = load_file(head_file)
    head = nn.Linear(hidden_size(model), len(tensors["bias"]))
    head.load_state_dict(tensors)
    config: Any = model.config
    names = [config.id2label[i] for i in range(head.out_features)]
    task = getattr(config, "finetuning_task", None) or "classification"
    length = getattr(config, "tuned_max_length", max_length(model))
    device = default_device()
    inputs = getattr(config, "tuned_inputs", "")
    return Tuned(model.to(device), head.to(device), task, tuple(names), length, inputs)


def open_reader(checkpoint: Path, length: int) -> PieceReader:
    """Open the tokenizer of a checkpoint as it will be used at run time."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return PieceReader(tokenizer, max_length=length)


def pad(rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return ids, mask and token types [B, L], and targets [B, ...]."""
    ids, mask = pad_ids([r.pieces.ids for r in rows], 0)  # the mask tells, whatever the id
    types = torch.zeros_like(ids)
    on_pieces = rows[0].target.ndim == 2
    labels = rows[0].target.shape[-1]
    targets = torch.zeros((*ids.shape, labels) if on_pieces else (len(rows), labels))
    for number, row in enumerate(rows):
        length = len(row.pieces.ids)
        types[number, row.pieces.second : length] = 1
        targets[number, : len(row.target)] = torch.from_numpy(row.target)
    return ids, mask, types, targets
