"""Held-out measures: the student's own masked-LM loss, and its agreement with the teacher."""

from itertools import islice

import numpy as np
import torch

from .batches import Batch, Texts, plan_epoch
from .losses import kl, project_to_classes
from .masking import Masking, mask_tokens
from .recipe import Pair, Vocabularies
from .student import encoder_states, output_rows

_BATCHES = 12
_TOKENS = 4096


@torch.no_grad()
def validate(valid: Texts, pair: Pair, *, batches: int = _BATCHES) -> dict[str, float]:
    """Measure a student on some fixed batches and fixed masks; values in nats and shares.

    mlm, mlm_top1: cross-entropy and accuracy on 15% masked pieces of the student's own tokens.
    Against a teacher, at the positions where both have a piece with the same span, over the shared
    classes, KL(teacher || student) at T = 1 and the share of equal first choices: kl_clean,
    top1_clean with unmasked input; kl_masked, top1_masked where that same piece is masked on both
    sides.
    """
    pair.student.eval()
    vocabularies = pair.vocabularies
    sums: dict[str, list[float]] = {}
    chosen = islice(plan_epoch(valid.lengths, tokens=_TOKENS, seed=0, epoch=0), batches)
    device = vocabularies.special.device
    for number, indices in enumerate(chosen):
        batch = valid.batch(indices).to(device)
        generator = torch.Generator(device=device).manual_seed(number)
        _own(batch, pair, vocabularies, generator, sums)
        if pair.teacher is not None:
            _against(batch, pair, vocabularies, generator, sums)
    return {name: round(float(np.mean(values)), 5) for name, values in sums.items()}


def _note(sums: dict[str, list[float]], **values: float) -> None:
    for name, value in values.items():
        sums.setdefault(name, []).append(value)


def _own(
    batch: Batch,
    pair: Pair,
    vocabularies: Vocabularies,
    generator: torch.Generator,
    sums: dict[str, list[float]],
) -> None:
    masked, places = mask_tokens(
        torch.where(batch.student_mask, batch.student_ids, vocabularies.pad_id),
        Masking(vocabularies.special, vocabularies.mask_id),
        generator=generator,
    )
    hidden = encoder_states(pair.student, masked, batch.student_mask)[-1][places]
    transform, weight, bias = output_rows(pair.student)
    logits = torch.nn.functional.linear(transform(hidden), weight, bias)
    labels = batch.student_ids[places]
    right = (logits.argmax(-1) == labels).float().mean()
    loss = torch.nn.functional.cross_entropy(logits.float(), labels)
    _note(sums, mlm=float(loss), mlm_top1=float(right))


def _against(
    batch: Batch,
    pair: Pair,
    vocabularies: Vocabularies,
    generator: torch.Generator,
    sums: dict[str, list[float]],
) -> None:
    teacher_matched = batch.teacher_matched & batch.teacher_mask
    student_matched = batch.student_matched & batch.student_mask
    real = ~vocabularies.special[batch.student_ids[student_matched]]
    hit = (torch.rand(len(real), generator=generator, device=real.device) < 0.15) & real
    for name, masks in (("clean", torch.zeros_like(hit)), ("masked", hit)):
        teacher_ids, student_ids = batch.teacher_ids.clone(), batch.student_ids.clone()
        teacher_row, student_row = teacher_ids[teacher_matched], student_ids[student_matched]
        teacher_row[masks] = vocabularies.teacher_mask_id
        student_row[masks] = vocabularies.mask_id
        teacher_ids[teacher_matched], student_ids[student_matched] = teacher_row, student_row
        compared = hit  # the same positions in both cases
        if not bool(compared.any()):
            continue
        assert pair.teacher is not None
        given = encoder_states(pair.student, student_ids, batch.student_mask)[-1]
        wanted = encoder_states(pair.teacher, teacher_ids, batch.teacher_mask)[-1]
        scores = _class_logits(
            pair.student, given[student_matched][compared], vocabularies.student_classes
        )
        targets = _class_logits(
            pair.teacher, wanted[teacher_matched][compared], vocabularies.teacher_classes
        )
        agree = (scores.argmax(-1) == targets.argmax(-1)).float().mean()
        _note(sums, **{f"kl_{name}": float(kl(targets, scores)), f"top1_{name}": float(agree)})


def _class_logits(
    model: torch.nn.Module, hidden: torch.Tensor, classes: torch.Tensor
) -> torch.Tensor:
    transform, weight, bias = output_rows(model)
    return project_to_classes(transform(hidden), weight, bias, classes)
