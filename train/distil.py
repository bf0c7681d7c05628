"""Distil a student, or pretrain a masked language model where there is no teacher."""

from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from .batches import Batch, Texts, plan
from .loop import Job, Losses, Schedule, accelerator_of, run_job
from .objective import batch_losses, total
from .recipe import Heads, Pair, Recipe
from .resident import ResidentTexts, texts_on
from .student import hidden_size
from .validate import validate


def distil(
    pair: Pair,
    texts: Texts,
    valid: Texts | None,
    *,
    recipe: Recipe,
    schedule: Schedule,
    out: Path,
) -> dict[str, float]:
    """Train `pair.student` in place; return the last validation. See `run_job` for the files."""
    accelerator = accelerator_of(schedule)
    device = accelerator.device
    pair = pair.to(device)
    heads = _heads(pair.student, pair.teacher, recipe, device, schedule.seed)
    modules: dict[str, nn.Module] = {"student": pair.student}
    if heads.projector is not None:
        modules["projector"] = heads.projector

    def losses(batch: Batch, generator: torch.Generator) -> Losses:
        batch = batch.to(device)
        parts = batch_losses(batch, pair, heads, recipe=recipe, generator=generator)
        return Losses(parts, total(parts, recipe), batch.student_mask.sum())

    job = Job(
        "distil" if pair.teacher is not None else "pretrain",
        modules,
        lambda skip: _draw(texts_on(texts, device), recipe, schedule, accelerator, skip=skip),
        losses,
        (lambda: validate(valid, pair)) if valid is not None else None,
    )
    return run_job(job, accelerator, schedule=schedule, out=out)


def _draw(
    texts: Texts | ResidentTexts,
    recipe: Recipe,
    schedule: Schedule,
    accelerator: Accelerator,
    *,
    skip: int,
) -> Iterator[Batch]:
    """Deal the planned batches out to the processes in turn."""
    world, rank = accelerator.num_processes, accelerator.process_index
    planned = plan(
        texts.lengths, tokens=schedule.tokens_per_batch, seed=schedule.seed, skip=skip * world
    )
    for number, indices in enumerate(planned):
        if number % world == rank:
            yield texts.batch(indices, strings=recipe.alignment == "match-string")


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
