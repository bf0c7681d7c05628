"""Write and read training state as safetensors and JSON, so that a killed run goes on exactly.

All randomness of a step follows from (seed, step): no generator state has to be kept. A checkpoint
is a folder that is renamed into place; the one before it is removed only then.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rubert_lite.errors import InputError
from rubert_lite.wordpiece import SPECIAL_PIECES

from .student import max_length


@dataclass(frozen=True)
class Trainee:
    """Everything that training changes."""

    modules: Mapping[str, nn.Module]
    optimizers: Sequence[torch.optim.Optimizer]


def save_state(folder: Path, trainee: Trainee, *, step: int, seconds: float = 0.0) -> None:
    """Write `folder/step-N`, then remove older ones; `seconds` were spent so far."""
    target = folder / f"step-{step:08d}"
    partial = folder / f".partial-{step:08d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, module in trainee.modules.items():
        # Tied tensors are stored once; loading ties them again by assigning in place.
        seen: set[int] = set()
        tensors = {}
        for key, value in module.state_dict().items():
            if value.data_ptr() not in seen or value.numel() == 0:
                seen.add(value.data_ptr())
                tensors[key] = value.detach().cpu().contiguous()
        save_file(tensors, partial / f"{name}.safetensors")
    tensors, scalars = {}, {}
    for number, optimizer in enumerate(trainee.optimizers):
        for index, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                name = f"{_prefix(number)}{index}.{key}"
                if isinstance(value, Tensor):
                    tensors[name] = value.detach().cpu().contiguous()
                else:
                    scalars[name] = value
    save_file(tensors, partial / "optimizer.safetensors")
    (partial / "state.json").write_text(
        json.dumps({"step": step, "seconds": seconds, "scalars": scalars})
    )
    _sync(partial)
    partial.rename(target)
    for old in folder.glob("step-*"):
        if old != target:
            shutil.rmtree(old)


def _prefix(number: int) -> str:
    """Return what names of an optimizer's values begin with: those of the first with nothing."""
    return f"{number}:" if number else ""


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def has_state(folder: Path) -> bool:
    """Tell whether `load_state` would find a checkpoint."""
    return any(folder.glob("step-*"))


def load_state(folder: Path, trainee: Trainee) -> tuple[int, float]:
    """Load the newest checkpoint into `trainee`; return its step and seconds, 0 without one."""
    if not has_state(folder):
        return 0, 0.0
    newest = max(folder.glob("step-*"))
    for name, module in trainee.modules.items():
        tensors = load_file(newest / f"{name}.safetensors")
        missing, unexpected = module.load_state_dict(tensors, strict=False)
        own = module.state_dict()
        stored = {own[k].data_ptr() for k in tensors if k in own}
        untied = [k for k in missing if own[k].data_ptr() not in stored]
        if untied or unexpected:
            raise InputError(
                f"{newest}: {name} does not fit this configuration (missing {untied[:3]},"
                f" unexpected {unexpected[:3]}): train into another folder or use --force"
            )
    meta: dict[str, Any] = json.loads((newest / "state.json").read_text())
    stored_values = {**load_file(newest / "optimizer.safetensors"), **meta["scalars"]}
    for number, optimizer in enumerate(trainee.optimizers):
        values: dict[int, dict[str, Any]] = {}
        for name, value in stored_values.items():
            prefix, _, key = name.rpartition(":")
            if prefix == _prefix(number).rstrip(":"):
                index, field = key.split(".", 1)
                values.setdefault(int(index), {})[field] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": values, "param_groups": groups})
    return int(meta["step"]), float(meta.get("seconds", 0.0))


def write_checkpoint(
    out: Path, student: torch.nn.Module, vocabulary_folder: Path, *, provenance: dict[str, Any]
) -> None:
    """Write a Hugging Face directory of the student, with what made it in training.json."""
    for name in ("tuned_max_length", "tuned_inputs"):  # of a task that it had
        vars(student.config).pop(name, None)
    student.save_pretrained(out, safe_serialization=True)  # type: ignore[operator]
    shutil.copyfile(vocabulary_folder / "tokenizer.json", out / "tokenizer.json")
    ids = vocabulary_folder / "vocabulary.json"  # what came out of a package has none
    if ids.is_file():
        shutil.copyfile(ids, out / "vocabulary.json")
    special = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL_PIECES, strict=True))
    names = {f"{k}_token": v for k, v in special.items()}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length(student),
        "model_input_names": ["input_ids", "attention_mask"],
        **names,
    }
    for name, data in (
        ("tokenizer_config.json", settings),
        ("special_tokens_map.json", names),
        ("training.json", provenance),
    ):
        text = json.dumps(data, ensure_ascii=False, indent=1)
        (out / name).write_text(text + "\n", encoding="utf-8")


def append_metrics(path: Path, record: Mapping[str, Any]) -> None:
    """Add one JSON line to a metrics file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a metrics file; a last line that a kill left unfinished is dropped."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def rewind_metrics(path: Path, step: int) -> None:
    """Drop the records after `step`: the resumed run writes them again."""
    kept = [r for r in read_metrics(path) if r["step"] <= step]
    path.write_text("".join(json.dumps(r) + "\n" for r in kept), encoding="utf-8")
