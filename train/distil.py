"""The training loop: batches in, a student out. Without a teacher it pretrains a masked LM."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from .batches import Batch, Texts, plan
from .checkpoint import Trainee, append_metrics, load_state, rewind_metrics, save_state
from .objective import batch_losses, total
from .recipe import Heads, Pair, Recipe
from .student import hidden_size
from .validate import validate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """How long, how fast and how often."""

    steps: int = 1000
    tokens_per_batch: int = 4096  # padded pieces of a micro-batch
    accumulation: int = 1  # micro-batches a step and process
    learning_rate: float = 5e-4
    warmup_share: float = 0.05
    decay: Literal["constant", "linear", "cosine"] = "linear"
    final_share: float = 0.02  # of the learning rate, at the end of the decay
    weight_decay: float = 0.01
    clip_norm: float = 5.0
    beta2: float = 0.98
    epsilon: float = 1e-6
    precision: Literal["no", "bf16"] = "no"
    seed: int = 42
    checkpoint_steps: int = 500
    validate_steps: int = 500
    log_steps: int = 10

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        warmup = max(1, int(self.steps * self.warmup_share))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        if self.decay == "constant":
            return self.learning_rate
        done = (step - warmup) / max(1, self.steps - warmup)
        left = 1 - done if self.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * (self.final_share + (1 - self.final_share) * left)


def distil(
    pair: Pair,
    texts: Texts,
    valid: Texts | None,
    *,
    recipe: Recipe,
    schedule: Schedule,
    out: Path,
) -> dict[str, float]:
    """Train `pair.student` in place; return the last validation.

    `out/state` holds the newest checkpoint: a run that was killed goes on from there and gives the
    same losses as one that was not. `out/metrics.jsonl` has a record for every `log_steps` steps.
    """
    accelerator = Accelerator(mixed_precision=schedule.precision, cpu=not torch.cuda.is_available())
    device = accelerator.device
    pair = pair.to(device)
    student, teacher = pair.student.train(), pair.teacher
    heads = _heads(student, teacher, recipe, device, schedule.seed)
    modules: dict[str, nn.Module] = {"student": student}
    if heads.projector is not None:
        modules["projector"] = heads.projector
    optimizer = torch.optim.AdamW(
        _parameter_groups(modules, schedule.weight_decay),
        lr=schedule.learning_rate,
        betas=(0.9, schedule.beta2),
        eps=schedule.epsilon,
        fused=True,
    )
    trainee = Trainee(modules, optimizer)
    start = load_state(out / "state", trainee)
    metrics = out / "metrics.jsonl"
    if accelerator.is_main_process:
        rewind_metrics(metrics, start)
    if start:
        logger.info("resuming at step %d of %d", start, schedule.steps)
    batches = _draw(texts, recipe, schedule, accelerator, skip=start * schedule.accumulation)
    last: dict[str, float] = {}
    log = _Log()
    bar = tqdm(
        total=schedule.steps,
        initial=start,
        desc="distil" if teacher is not None else "pretrain",
        unit="step",
        disable=None if accelerator.is_main_process else True,
    )
    for step in range(start, schedule.steps):
        # Everything random in a step follows from the seed, the step and the process: see
        # checkpoint.py.
        seed = _seed(schedule.seed, step, accelerator.process_index)
        torch.manual_seed(seed)
        generator = torch.Generator(device=device).manual_seed(seed)
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        for _ in range(schedule.accumulation):
            batch = next(batches).to(device)
            with accelerator.autocast():
                losses = batch_losses(batch, pair, heads, recipe=recipe, generator=generator)
                loss = total(losses, recipe)
            (loss / schedule.accumulation).backward()  # type: ignore[no-untyped-call]
            log.add(losses, loss, batch)
        parameters = [p for m in modules.values() for p in m.parameters() if p.grad is not None]
        if accelerator.num_processes > 1:
            # Students are small: averaging gradients by hand keeps the loop free of model wrappers.
            for p in parameters:
                p.grad = accelerator.reduce(p.grad, "mean")
        norm = nn.utils.clip_grad_norm_(parameters, schedule.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        bar.update()
        done = step + 1
        if accelerator.is_main_process and (
            done % schedule.log_steps == 0 or done == schedule.steps
        ):
            record = log.record(done, schedule.rate(step), float(norm))
            append_metrics(metrics, record)
            bar.set_postfix(loss=f"{record['loss']:.3f}", tokens_s=f"{record['tokens_s']:.0f}")
        due = done % schedule.validate_steps == 0 or done == schedule.steps
        if due and valid is not None and accelerator.is_main_process:
            last = validate(valid, pair)
            append_metrics(metrics, {"step": done, "valid": last})
            student.train()
            log.restart_clock()
        due = done % schedule.checkpoint_steps == 0 or done == schedule.steps
        if due and accelerator.is_main_process:
            save_state(out / "state", trainee, step=done)
    bar.close()
    if not last and valid is not None:
        last = validate(valid, pair)
    return last


def _seed(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_003 + step * 1_009 + rank) % (1 << 63)


def _draw(
    texts: Texts, recipe: Recipe, schedule: Schedule, accelerator: Accelerator, *, skip: int
) -> Iterator[Batch]:
    """Deal the planned batches out to the processes in turn."""
    world, rank = accelerator.num_processes, accelerator.process_index
    planned = plan(
        texts.lengths, tokens=schedule.tokens_per_batch, seed=schedule.seed, skip=skip * world
    )
    for number, indices in enumerate(planned):
        if number % world == rank:
            yield texts.batch(indices.tolist(), strings=recipe.alignment == "match-string")


def _heads(
    student: nn.Module, teacher: nn.Module | None, recipe: Recipe, device: torch.device, seed: int
) -> Heads:
    if teacher is None or not (recipe.hidden or recipe.contrastive):
        return Heads(None)
    widths = [hidden_size(m) for m in (student, teacher)]
    if widths[0] == widths[1]:
        return Heads(None)
    torch.manual_seed(seed)
    return Heads(nn.Linear(widths[0], widths[1], bias=False).to(device))


def _parameter_groups(
    modules: Mapping[str, nn.Module], weight_decay: float
) -> list[dict[str, object]]:
    """Decay matrices only: not biases, not norms."""
    parameters = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]


class _Log:
    """Means of the losses since the last record."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.sums: dict[str, Tensor] = {}
        self.batches = 0
        self.tokens = 0
        self.started = clock()

    def add(self, losses: Mapping[str, Tensor], loss: Tensor, batch: Batch) -> None:
        for name, value in {**losses, "loss": loss}.items():
            self.sums[name] = self.sums.get(name, torch.zeros(())) + value.detach().float().cpu()
        self.batches += 1
        self.tokens += int(batch.student_mask.sum())

    def record(self, step: int, rate: float, norm: float) -> dict[str, float]:
        seconds = max(self.clock() - self.started, 1e-9)
        means = {k: round(float(v) / self.batches, 6) for k, v in self.sums.items()}
        result = {"step": step, **means, "rate": rate, "norm": round(norm, 4)}
        result["tokens_s"] = round(self.tokens / seconds, 1)
        self.sums, self.batches, self.tokens = {}, 0, 0
        self.started = self.clock()
        return result

    def restart_clock(self) -> None:
        """Leave time spent elsewhere out of the speed."""
        self.started = self.clock()
        self.tokens = 0
