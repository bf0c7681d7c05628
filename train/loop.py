"""The training loop, written out: one for pretraining, distillation and the sentence stage."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from tqdm import tqdm

from rubert_lite.errors import ConfigError

from .checkpoint import (
    Trainee,
    append_metrics,
    has_state,
    load_state,
    rewind_metrics,
    save_state,
)
from .optimizer import optimizers_of
from .precision import Precision, worth_it
from .student import default_device

logger = logging.getLogger(__name__)

Item = TypeVar("Item")  # a micro-batch


@dataclass(frozen=True)
class Schedule:
    """How long, how fast and how often."""

    steps: int = 1000
    # Ends by the clock, too, where above 0: warm-up and decay go by whichever is further on. Such a
    # run is not repeated exactly, and has one process.
    max_minutes: float = 0.0
    tokens_per_batch: int = 4096  # padded pieces of a micro-batch
    accumulation: int = 1  # micro-batches a step and process
    optimizer: Literal["adamw", "muon"] = "adamw"  # see optimizer.py
    learning_rate: float = 5e-4
    warmup_share: float = 0.05
    decay: Literal["constant", "linear", "cosine"] = "linear"
    final_share: float = 0.02  # of the learning rate, at the end of the decay
    weight_decay: float = 0.01
    clip_norm: float = 5.0
    beta2: float = 0.98
    epsilon: float = 1e-6
    precision: Precision = "no"
    seed: int = 42
    checkpoint_steps: int = 500
    validate_steps: int = 500
    log_steps: int = 10

    def rate(self, step: int, *, seconds: float = 0.0) -> float:
        """Return the learning rate of a step, counted from 0, after so many seconds."""
        warmup = max(1, int(self.steps * self.warmup_share))
        position = max(step, self.time_share(seconds) * self.steps)
        if position < warmup:
            return self.learning_rate * min(1.0, (position + 1) / warmup)
        if self.decay == "constant":
            return self.learning_rate
        done = (position - warmup) / max(1, self.steps - warmup)
        left = 1 - done if self.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * (self.final_share + (1 - self.final_share) * left)

    def time_share(self, seconds: float) -> float:
        """Return how much of the time is over, 0 where there is no limit."""
        return min(1.0, seconds / (60 * self.max_minutes)) if self.max_minutes else 0.0


@dataclass(frozen=True)
class Losses:
    """What one micro-batch gave."""

    parts: Mapping[str, Tensor]  # unweighted, for the log
    total: Tensor  # with a graph
    pieces: int | Tensor  # real student pieces, for the speed


@dataclass(frozen=True)
class Job(Generic[Item]):
    """What a run trains, on what, and how it is judged."""

    name: str  # beside the progress bar
    modules: Mapping[str, nn.Module]  # everything trained, on the device of the accelerator
    # The micro-batches of this process after so many of its own.
    batches: Callable[[int], Iterator[Item]]
    losses: Callable[[Item, torch.Generator], Losses]
    validate: Callable[[], dict[str, float]] | None


def accelerator_of(schedule: Schedule) -> Accelerator:
    """Return the devices and processes of a run: a GPU where there is one."""
    precision = worth_it(schedule.precision, default_device())
    if precision == "bf16":
        torch.set_float32_matmul_precision("high")  # what stays float32 may use TF32 on a GPU
    # A process may have run a stage with another precision before.
    AcceleratorState._reset_state()  # it has no public name
    return Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())


def run_job(
    job: Job[Item], accelerator: Accelerator, *, schedule: Schedule, out: Path
) -> dict[str, float]:
    """Train `job.modules` in place; return the last validation.

    `out/state` holds the newest checkpoint: a run that was killed goes on from there and gives the
    same losses as one that was not; one by the clock goes on with the time that was left.
    `out/metrics.jsonl` has a record for every `log_steps` steps. Raises ConfigError at a loss or
    gradient that is not finite: the checkpoint before it stays.
    """
    if schedule.max_minutes and accelerator.num_processes > 1:
        raise ConfigError(["max_minutes is for one process: each would have a clock of its own"])
    device = accelerator.device
    for module in job.modules.values():
        module.train()
    optimizers = optimizers_of(
        job.modules,
        kind=schedule.optimizer,
        learning_rate=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        beta2=schedule.beta2,
        epsilon=schedule.epsilon,
    )
    trainee = Trainee(job.modules, optimizers)
    start, spent = load_state(out / "state", trainee)
    metrics = out / "metrics.jsonl"
    if accelerator.is_main_process:
        rewind_metrics(metrics, start)
    if start:
        logger.info("resuming at step %d of %d", start, schedule.steps)
    batches = job.batches(start * schedule.accumulation)
    last: dict[str, float] = {}
    log = _Log()
    begun = time.perf_counter() - spent
    bar = tqdm(
        total=schedule.steps,
        initial=start,
        desc=job.name,
        unit="step",
        disable=None if accelerator.is_main_process else True,
    )
    over = schedule.time_share(spent) == 1.0  # killed after its last checkpoint
    for step in range(start, start if over else schedule.steps):
        # Everything random in a step follows from the seed, the step and the process: see
        # checkpoint.py.
        seed = _seed(schedule.seed, step, accelerator.process_index)
        torch.manual_seed(seed)
        generator = torch.Generator(device=device).manual_seed(seed)
        seconds = time.perf_counter() - begun
        rate = schedule.rate(step, seconds=seconds)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        loss = torch.zeros((), device=device)
        for _ in range(schedule.accumulation):
            item = next(batches)
            with accelerator.autocast():
                losses = job.losses(item, generator)
            (losses.total / schedule.accumulation).backward()  # type: ignore[no-untyped-call]
            log.add(losses.parts, losses.total, losses.pieces)
            loss += losses.total.detach().float()
        parameters = [p for m in job.modules.values() for p in m.parameters() if p.grad is not None]
        if accelerator.num_processes > 1:
            # Students are small: averaging gradients by hand keeps the loop free of model wrappers.
            for p in parameters:
                p.grad = accelerator.reduce(p.grad, "mean")
        norm = nn.utils.clip_grad_norm_(parameters, schedule.clip_norm)
        _refuse_broken(job.name, step + 1, loss / schedule.accumulation, norm, out / "state")
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        bar.update()
        done = step + 1
        ends = done == schedule.steps or schedule.time_share(seconds) == 1.0
        if accelerator.is_main_process and (done % schedule.log_steps == 0 or ends):
            record = log.record(done, rate, float(norm))
            append_metrics(metrics, record)
            bar.set_postfix(loss=f"{record['loss']:.3f}", tokens_s=f"{record['tokens_s']:.0f}")
        due = done % schedule.validate_steps == 0 or ends
        if due and job.validate is not None and accelerator.is_main_process:
            last = job.validate()
            append_metrics(metrics, {"step": done, "valid": last})
            for module in job.modules.values():
                module.train()
            log.restart_clock()
        due = done % schedule.checkpoint_steps == 0 or ends
        if due and accelerator.is_main_process:
            save_state(out / "state", trainee, step=done, seconds=seconds)
        if ends:
            break
    bar.close()
    if not last and job.validate is not None:
        last = job.validate()
    return last


def _refuse_broken(name: str, step: int, loss: Tensor, norm: Tensor, state: Path) -> None:
    """Raise ConfigError at a loss or norm of gradients that is not finite."""
    # One number: a GPU is waited for once, after all that it has to do before the weights change.
    if math.isfinite(float(loss.abs() + norm.to(loss.device))):
        return
    kept = f"{state} keeps the checkpoint before it" if has_state(state) else "no checkpoint yet"
    raise ConfigError(
        [
            f"{name}: step {step}: the loss is {float(loss):g} and the norm of the gradients"
            f" {float(norm):g}, expected finite numbers ({kept}): lower the stage's learning_rate,"
            " warm up longer, or look for what is broken in its texts, vectors or weights"
        ]
    )


def _seed(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_003 + step * 1_009 + rank) % (1 << 63)


class _Log:
    """Means of the losses since the last record."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.sums: dict[str, Tensor] = {}
        self.batches = 0
        self.tokens: int | Tensor = 0
        self.started = clock()

    def add(self, losses: Mapping[str, Tensor], loss: Tensor, pieces: int | Tensor) -> None:
        for name, value in {**losses, "loss": loss}.items():
            # On the device: bringing a number over would make every step wait for the GPU.
            found = value.detach().float()
            self.sums[name] = self.sums[name] + found if name in self.sums else found
        self.batches += 1
        self.tokens = self.tokens + pieces

    def record(self, step: int, rate: float, norm: float) -> dict[str, float]:
        tokens = int(self.tokens)  # waits for a GPU, so before the clock is read
        seconds = max(self.clock() - self.started, 1e-9)
        means = {k: round(float(v) / self.batches, 6) for k, v in self.sums.items()}
        result = {"step": step, **means, "rate": rate, "norm": round(norm, 4)}
        result["tokens_s"] = round(tokens / seconds, 1)
        self.sums, self.batches, self.tokens = {}, 0, 0
        self.started = self.clock()
        return result

    def restart_clock(self) -> None:
        """Leave time spent elsewhere out of the speed."""
        self.started = self.clock()
        self.tokens = 0
