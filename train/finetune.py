"""Give a student a task: a linear head on its mean-pooled vector or on its pieces.

The encoder is trained along, or frozen; gold labels, or the probabilities of a tuned teacher
(GLMD's last stage, arXiv 2306.06625: soft labels alone, at temperature 1).
"""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from rubert_lite.errors import ConfigError, InputError

from .axes import keep_axes
from .checkpoint import append_metrics
from .heads import Kind, Row, Scores
from .loading import load_masked_lm
from .precision import Precision, autocast, worth_it
from .student import default_device, encoder_states, hidden_size, max_length, mean_of
from .tuned import Tuned, load_tuned, open_reader, pad

logger = logging.getLogger(__name__)

_NOT_COPIED = ("stage.json", "manifest.json", "modules.json")  # of the folder that they lie in
_WINDOW = 16  # batches whose texts are sorted by length together


@dataclass(frozen=True)
class Tuning:
    """How the head (and the encoder, unless frozen) is trained."""

    freeze_encoder: bool = True
    epochs: int = 5
    patience: int = 0  # epochs without a better dev score before it stops; 0: never
    learning_rate: float = 1e-3
    warmup_share: float = 0.0
    weight_decay: float = 0.01
    dropout: float = 0.0  # before the head
    batch_size: int = 64
    max_length: int = 512  # pieces of a text, or of a window of a longer one
    precision: Precision = "no"
    metric: str = ""  # the dev score that decides which epoch is kept; default: the task's
    seed: int = 42


def finetune(
    checkpoint: Path, kind: Kind, *, tuning: Tuning, out: Path, soft: Path | None = None
) -> Scores:
    """Train on `kind` and write a checkpoint with head.safetensors; return the best dev scores.

    `soft` is a checkpoint with a head for the same labels: its probabilities take the place of the
    gold labels. With a frozen encoder the vectors of the checkpoint stay what they were: one model
    encodes and does its task.
    """
    torch.manual_seed(tuning.seed)
    model = load_masked_lm(checkpoint, headless=True)
    length = min(tuning.max_length, max_length(model))
    reader = open_reader(checkpoint, length)
    told = None if soft is None else _tell(soft, kind)
    rows = kind.rows(reader, max_length=length, told=told)
    device = default_device()
    tuning = replace(tuning, precision=worth_it(tuning.precision, device))
    head = nn.Linear(hidden_size(model), len(kind.labels)).to(device)
    tuned = Tuned(model.to(device), head, kind.task, kind.labels, length)
    model.requires_grad_(not tuning.freeze_encoder)
    pooled = tuning.freeze_encoder and not tuned.on_pieces
    vectors = _features(tuned, rows, tuning) if pooled else None
    trained = [*tuned.head.parameters(), *(p for p in model.parameters() if p.requires_grad)]
    batches = -(-len(rows) // tuning.batch_size)
    optimizer = torch.optim.AdamW(
        trained, lr=tuning.learning_rate, weight_decay=tuning.weight_decay, fused=True
    )
    schedule = _schedule(optimizer, tuning, batches * tuning.epochs)
    chance = np.random.default_rng(tuning.seed)
    metric = tuning.metric or kind.metric
    best: Scores = {}
    kept: dict[str, dict[str, Tensor]] = {}
    waited = 0
    for epoch in range(1, tuning.epochs + 1):
        model.train(not tuning.freeze_encoder)
        order = _order(rows, tuning.batch_size, chance)
        for chosen in tqdm(order, desc=f"epoch {epoch}", unit="batch", disable=None, leave=False):
            loss = _loss(tuned, [rows[i] for i in chosen], tuning, vectors, chosen)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
        if not torch.isfinite(loss):
            raise ConfigError(
                [f"finetune: the loss is not finite in epoch {epoch}: lower finetune.learning_rate"]
            )
        served = tuned if vectors is None else _unscaled(tuned, vectors)
        scores = kind.score(reader, served, max_length=length)
        if metric not in scores:
            raise ConfigError(
                [f"finetune.metric = {metric!r}: expected one of {', '.join(scores)}"]
            )
        append_metrics(out / "metrics.jsonl", {"step": epoch, **scores})
        waited += 1
        if not best or scores[metric] > best[metric]:
            best, waited = scores, 0
            encoder = {} if tuning.freeze_encoder else _copy(model)
            kept = {"head": _copy(served.head), "model": encoder}
        if tuning.patience and waited >= tuning.patience:
            break
    if kept["model"]:
        model.load_state_dict(kept["model"])
    # A frozen encoder reads as much as before: its vectors stay what they were.
    bound = 0 if tuning.freeze_encoder and not tuned.on_pieces else length
    _write(checkpoint, out, model, kind, max_length=bound)
    if tuning.freeze_encoder:  # else its vectors are others, and so would be their axes
        keep_axes(checkpoint, out)
    save_file({k: v.contiguous() for k, v in kept["head"].items()}, out / "head.safetensors")
    return best


def _tell(checkpoint: Path, kind: Kind) -> list[NDArray[np.float32]]:
    tuned = load_tuned(checkpoint)
    if (tuned.task, tuned.labels) != (kind.task, kind.labels):
        raise InputError(
            f"{checkpoint}: a teacher of {tuned.task} with {', '.join(tuned.labels)}, expected"
            f" {kind.task} with {', '.join(kind.labels)}: tune it on the same files"
        )
    if tuned.inputs not in ("", kind.inputs):
        raise InputError(
            f"{checkpoint}: a teacher of {tuned.inputs}, expected one of {kind.inputs}: tune it on"
            " the same files"
        )
    reader = open_reader(checkpoint, tuned.max_length)
    return kind.tell(reader, tuned, max_length=tuned.max_length)


@dataclass(frozen=True)
class _Features:
    """Pooled vectors of the training rows, standardised: sizes that differ slow a head down."""

    values: Tensor  # [rows, D]
    centre: Tensor
    spread: Tensor


def _features(tuned: Tuned, rows: Sequence[Row], tuning: Tuning) -> _Features:
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].pieces.ids))
    tuned.model.eval()
    for start in tqdm(range(0, len(order), 64), desc="encode", unit="batch", disable=None):
        chosen = order[start : start + 64]
        ids, mask, types, _ = (t.to(tuned.device) for t in pad([rows[i] for i in chosen]))
        with torch.no_grad(), autocast(tuning.precision, tuned.device):
            states = encoder_states(tuned.model, ids, mask, types)[-1].float()
        for row, vector in zip(chosen, mean_of(states, mask), strict=True):
            found[row] = vector
    values = torch.stack(found)
    centre = values.mean(0)
    spread = values.std(0) + 1e-6 if len(values) > 1 else torch.ones_like(centre)
    return _Features((values - centre) / spread, centre, spread)


def _unscaled(tuned: Tuned, features: _Features) -> Tuned:
    """Fold the scale of standardised features into a copy of the head."""
    head = nn.Linear(tuned.head.in_features, tuned.head.out_features).to(tuned.device)
    with torch.no_grad():
        head.weight.copy_(tuned.head.weight / features.spread)
        head.bias.copy_(tuned.head.bias - head.weight @ features.centre)
    return Tuned(tuned.model, head, tuned.task, tuned.labels, tuned.max_length)


def _loss(
    tuned: Tuned,
    rows: Sequence[Row],
    tuning: Tuning,
    features: _Features | None,
    chosen: Sequence[int],
) -> Tensor:
    """Return the cross-entropy with the targets: over labels, or over pieces for an answer."""
    if features is not None:
        logits = tuned.from_features(features.values[list(chosen)], tuning.dropout)
        targets = torch.from_numpy(np.stack([r.target for r in rows])).to(tuned.device)
    else:
        ids, mask, types, targets = (t.to(tuned.device, non_blocking=True) for t in pad(rows))
        with autocast(tuning.precision, tuned.device):
            logits = tuned.logits(ids, mask, types, tuning.dropout).float()
        if tuned.on_pieces:
            logits = logits.masked_fill(~mask[:, :, None], torch.finfo(torch.float32).min)
    axis = 1 if tuned.task == "question-answering" else -1
    surprise = -(targets * torch.log_softmax(logits, dim=axis)).sum()
    # Weights of classes are 1 in the mean over all texts, not over those of a batch: divided by
    # their sum there, a rare class would have a batch without it in its stead.
    asked = targets.sum() if tuned.on_pieces else targets.new_tensor(len(rows))
    return surprise / asked.clamp(min=1e-6)


def _schedule(
    optimizer: torch.optim.Optimizer, tuning: Tuning, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    warmup = int(tuning.warmup_share * steps)

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (steps - step) / max(steps - warmup, 1))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def _order(rows: Sequence[Row], size: int, chance: np.random.Generator) -> list[list[int]]:
    """Shuffle rows into batches of similar length."""
    lengths = np.asarray([len(r.pieces.ids) for r in rows])
    batches: list[list[int]] = []
    shuffled = chance.permutation(len(rows))
    for start in range(0, len(rows), size * _WINDOW):
        window = shuffled[start : start + size * _WINDOW]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches += [window[i : i + size].tolist() for i in range(0, len(window), size)]
    return [batches[i] for i in chance.permutation(len(batches))]


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


def _write(checkpoint: Path, out: Path, model: nn.Module, kind: Kind, *, max_length: int) -> None:
    """Copy a checkpoint with the trained weights; its config says task, labels, length and inputs.

    `tuned_max_length`, unless 0: a text, or a window of one, is read as long as in training.
    """
    for path in checkpoint.iterdir():
        if path.is_file() and path.suffix == ".json" and path.name not in _NOT_COPIED:
            shutil.copyfile(path, out / path.name)
    model.save_pretrained(out, safe_serialization=True)  # type: ignore[operator]
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config["finetuning_task"] = kind.task
    tuned = {"tuned_max_length": max_length, "tuned_inputs": kind.inputs}
    config = {k: v for k, v in config.items() if k not in tuned}  # of an earlier task
    config |= {name: value for name, value in tuned.items() if value}
    config["id2label"] = {str(i): name for i, name in enumerate(kind.labels)}
    config["label2id"] = {name: i for i, name in enumerate(kind.labels)}
    text = json.dumps(config, ensure_ascii=False, indent=1)
    (out / "config.json").write_text(text + "\n", encoding="utf-8")
