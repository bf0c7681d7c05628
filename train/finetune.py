"""Give a student a task: a linear head on its mean-pooled vector, the encoder frozen or not."""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from tqdm import tqdm

from rubert_lite.errors import InputError
from rubert_lite.normalize import normalize_text

from .checkpoint import append_metrics
from .reading import read_records
from .student import hidden_size, load_masked_lm, max_length, mean_pooled

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """A text, or a pair of texts, and the index of its label."""

    text: str
    pair: str | None
    label: int


@dataclass(frozen=True)
class Keys:
    """Where a labelled record keeps its parts; `pair` may be empty."""

    text: str = "text"
    pair: str = ""
    label: str = "label"


@dataclass(frozen=True)
class Tuning:
    """How the head (and the encoder, unless frozen) is trained."""

    freeze_encoder: bool = True
    epochs: int = 5
    learning_rate: float = 1e-3
    batch_size: int = 64
    balance: bool = False  # every class weighs the same, however rare
    seed: int = 42


@dataclass(frozen=True)
class Labelled:
    """The examples of both splits and the names of their labels."""

    train: Sequence[Example]
    dev: Sequence[Example]
    labels: tuple[str, ...]


def read_labelled(
    train: Path, dev: Path, *, keys: Keys, names: Mapping[str, str] | None = None
) -> Labelled:
    """Read two jsonl files; `names` renames labels, and several may share a name.

    Raises InputError for a record without its keys, a label that `names` or the training file
    lacks, and fewer than two labels.
    """
    names = names or {}
    raw = {path: list(_records(path, keys)) for path in (train, dev)}
    if names:
        unknown = {label for rows in raw.values() for *_, label in rows} - set(names)
        if unknown:
            raise InputError(
                f"{train}: label {sorted(unknown)[0]!r} is not in finetune.labels: add it"
            )
    labels = tuple(sorted({names.get(label, label) for *_, label in raw[train]}))
    if len(labels) < 2:
        raise InputError(f"{train}: {len(labels)} label(s), expected at least two")
    index = {name: i for i, name in enumerate(labels)}
    splits = []
    for path, rows in raw.items():
        examples = []
        for text, pair, label in rows:
            name = names.get(label, label)
            if name not in index:
                raise InputError(f"{path}: label {name!r} does not occur in {train}")
            examples.append(Example(text, pair, index[name]))
        splits.append(examples)
    return Labelled(splits[0], splits[1], labels)


def _records(path: Path, keys: Keys) -> Iterator[tuple[str, str | None, str]]:
    wanted = [k for k in (keys.text, keys.pair, keys.label) if k]
    for place, record in read_records(path):
        missing = [k for k in wanted if k not in record]
        if missing:
            raise InputError(f"{place}: no {missing[0]!r}: the record has {', '.join(record)}")
        pair = normalize_text(str(record[keys.pair])) if keys.pair else None
        yield normalize_text(str(record[keys.text])), pair, str(record[keys.label])


def finetune(checkpoint: Path, data: Labelled, *, tuning: Tuning, out: Path) -> dict[str, float]:
    """Train on `data` and write a checkpoint with head.safetensors; return the best dev scores.

    The epoch with the best macro F1 on dev is kept. With a frozen encoder the vectors of the
    checkpoint stay what they were: one model encodes and classifies.
    """
    torch.manual_seed(tuning.seed)
    model = load_masked_lm(checkpoint)
    head = nn.Linear(hidden_size(model), len(data.labels))
    batcher = _Batcher.open(checkpoint, max_length(model))
    model.requires_grad_(not tuning.freeze_encoder)
    features: dict[int, Tensor] = {}
    if tuning.freeze_encoder:
        model.eval()
        for number, examples in enumerate((data.train, data.dev)):
            features[number] = batcher.features(model, examples)
        # Features of very different sizes slow the head down: it learns on standardised ones, and
        # the scale is folded back into its weights afterwards.
        centre, spread = features[0].mean(0), features[0].std(0) + 1e-6
        features = {k: (v - centre) / spread for k, v in features.items()}
    trained = [*head.parameters(), *(p for p in model.parameters() if p.requires_grad)]
    optimizer = torch.optim.AdamW(trained, lr=tuning.learning_rate, weight_decay=0.01)
    generator = torch.Generator().manual_seed(tuning.seed)
    best: dict[str, float] = {"macro_f1": -1.0}
    kept: dict[str, dict[str, Tensor]] = {}
    dev_labels = torch.tensor([e.label for e in data.dev])
    weights = class_weights(data) if tuning.balance else None
    for epoch in range(tuning.epochs):
        shuffled = torch.randperm(len(data.train), generator=generator)
        order = torch.split(shuffled, tuning.batch_size)
        model.train(not tuning.freeze_encoder)
        for rows in tqdm(order, desc=f"epoch {epoch + 1}", unit="batch", disable=None, leave=False):
            labels = torch.tensor([data.train[i].label for i in rows.tolist()])
            if tuning.freeze_encoder:
                pooled = features[0][rows]
            else:
                pooled = batcher.pooled(model, [data.train[i] for i in rows.tolist()])
            loss = nn.functional.cross_entropy(head(pooled), labels, weight=weights)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        model.eval()
        with torch.no_grad():
            dev = features[1] if tuning.freeze_encoder else batcher.features(model, data.dev)
            scores = score(head(dev).argmax(1), dev_labels, len(data.labels))
        append_metrics(out / "metrics.jsonl", {"step": epoch + 1, **scores})
        if scores["macro_f1"] > best["macro_f1"]:
            best = scores
            kept = {"head": _copy(head), "model": {} if tuning.freeze_encoder else _copy(model)}
    head.load_state_dict(kept["head"])
    if kept["model"]:
        model.load_state_dict(kept["model"])
    weight, bias = head.weight.detach(), head.bias.detach()
    if tuning.freeze_encoder:
        weight = weight / spread
        bias = bias - weight @ centre
    _write(checkpoint, out, model, labels=data.labels)
    save_file({"weight": weight.contiguous(), "bias": bias.contiguous()}, out / "head.safetensors")
    return best


def class_weights(data: Labelled) -> Tensor:
    """Return weights [C] that give every class the same share of the training loss."""
    counts = torch.bincount(
        torch.tensor([e.label for e in data.train]), minlength=len(data.labels)
    ).float()
    return counts.sum() / (len(data.labels) * counts)


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


def score(predicted: Tensor, labels: Tensor, classes: int) -> dict[str, float]:
    """Accuracy and macro F1 of predicted class indices."""
    pairs = torch.bincount(labels * classes + predicted, minlength=classes * classes)
    table = pairs.view(classes, classes).double()
    hits = table.diagonal()
    f1 = 2 * hits / (table.sum(0) + table.sum(1)).clamp(min=1)
    return {
        "accuracy": round(float(hits.sum() / table.sum().clamp(min=1)), 5),
        "macro_f1": round(float(f1.mean()), 5),
    }


@dataclass(frozen=True)
class _Batcher:
    """Tokenises examples and runs the encoder over them."""

    tokenizer: Tokenizer
    pad_id: int

    @classmethod
    def open(cls, checkpoint: Path, max_length: int) -> "_Batcher":
        tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        tokenizer.enable_truncation(max_length)
        return cls(tokenizer, tokenizer.token_to_id("[PAD]"))

    def pooled(self, model: nn.Module, examples: Sequence[Example]) -> Tensor:
        texts: list[Any] = [e.text if e.pair is None else (e.text, e.pair) for e in examples]
        ids = [e.ids for e in self.tokenizer.encode_batch(texts)]
        width = max(map(len, ids))
        array = np.full((len(ids), width), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(ids), width), dtype=bool)
        for row, values in enumerate(ids):
            array[row, : len(values)], mask[row, : len(values)] = values, True
        return mean_pooled(model, torch.from_numpy(array), torch.from_numpy(mask))

    @torch.no_grad()
    def features(self, model: nn.Module, examples: Sequence[Example], size: int = 64) -> Tensor:
        order = sorted(range(len(examples)), key=lambda i: len(examples[i].text))
        out: list[Tensor] = [torch.empty(0)] * len(examples)
        for start in tqdm(range(0, len(order), size), desc="encode", unit="batch", disable=None):
            rows = order[start : start + size]
            for row, vector in zip(
                rows, self.pooled(model, [examples[i] for i in rows]), strict=True
            ):
                out[row] = vector
        return torch.stack(out)


def _write(checkpoint: Path, out: Path, model: nn.Module, *, labels: Sequence[str]) -> None:
    """Copy a checkpoint with the trained weights and the labels in its config."""
    for path in checkpoint.iterdir():
        if path.is_file() and path.suffix == ".json" and path.name != "stage.json":
            shutil.copyfile(path, out / path.name)
    model.save_pretrained(out, safe_serialization=True)  # type: ignore[operator]
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config["id2label"] = {str(i): name for i, name in enumerate(labels)}
    config["label2id"] = {name: i for i, name in enumerate(labels)}
    text = json.dumps(config, ensure_ascii=False, indent=1)
    (out / "config.json").write_text(text + "\n", encoding="utf-8")
