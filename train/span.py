"""Compare what both models think of whole words, whatever pieces they write them in.

Approximate likelihood matching (arXiv 2503.20083) carried over to masked language models: a group
of pieces (the shortest stretch that ends at the same character on both sides) is masked as a
whole, and its likelihood is the product of the probabilities of its pieces. So there is a signal on
just the words that *match* leaves out.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .batches import Batch
from .recipe import Vocabularies
from .student import output_rows

_ROWS = 256  # whose logits are made together; the teacher's are gone before the next are made


@dataclass(frozen=True)
class MaskedGroups:
    """Both sides of a batch with the same groups masked."""

    student_ids: Tensor  # [B, L_s]
    student_places: Tensor  # [B, L_s] bool: masked
    teacher_ids: Tensor  # [B, L_t]
    teacher_places: Tensor  # [B, L_t] bool


def mask_groups(
    batch: Batch, vocabularies: Vocabularies, *, share: float, generator: torch.Generator
) -> MaskedGroups:
    """Mask every piece of ceil(share * groups) groups, drawn alike.

    Groups in which the student has a special piece ([CLS], [SEP], [UNK]) are never drawn, nor those
    in which the teacher has [UNK]: it says nothing of the text there.
    """
    width = _groups(batch)
    rows = len(batch.student_ids)

    def marked(group: Tensor, true: Tensor) -> Tensor:
        hit = torch.zeros(rows, width, dtype=torch.int32, device=group.device)
        return hit.scatter_add_(1, group, true.int()) > 0

    special = vocabularies.special[batch.student_ids] & batch.student_mask
    free = marked(batch.student_group, batch.student_mask)
    free &= marked(batch.teacher_group, batch.teacher_mask)
    free &= ~marked(batch.student_group, special)
    unknown = (batch.teacher_ids == vocabularies.teacher_unk_id) & batch.teacher_mask
    free &= ~marked(batch.teacher_group, unknown)
    noise = torch.rand(free.shape, generator=generator, device=generator.device).to(free.device)
    count = math.ceil(share * int(free.sum()) - 1e-9)
    chosen = torch.zeros_like(free)
    order = noise.masked_fill(~free, -1.0).flatten().topk(count).indices
    chosen.view(-1)[order] = True
    student = chosen.gather(1, batch.student_group) & batch.student_mask
    teacher = chosen.gather(1, batch.teacher_group) & batch.teacher_mask
    return MaskedGroups(
        torch.where(student, vocabularies.mask_id, batch.student_ids),
        student,
        torch.where(teacher, vocabularies.teacher_mask_id, batch.teacher_ids),
        teacher,
    )


def span_loss(
    batch: Batch,
    masked: MaskedGroups,
    teacher: tuple[nn.Module, Tensor],
    student: tuple[nn.Module, Tensor],
    *,
    temperature: float = 100.0,
) -> Tensor:
    """Return the mean loss of the masked groups; models come with their last states [B, L, D].

    Per group T * BCE(p_teacher^(1/T), p_student^(1/T)) over "this text or another": the factor T
    keeps the gradient's size when T changes. No groups give 0.
    """
    width = _groups(batch)
    with torch.no_grad():
        wanted = _likelihoods(
            *teacher, batch.teacher_ids, masked.teacher_places, batch.teacher_group, width
        )
    given = _likelihoods(
        *student, batch.student_ids, masked.student_places, batch.student_group, width
    )
    rows = torch.arange(len(batch.student_ids), device=given.device)[:, None]
    own = torch.unique((rows * width + batch.student_group)[masked.student_places])
    return binary_match(wanted[own], given[own], temperature=temperature)


def binary_match(wanted: Tensor, given: Tensor, *, temperature: float) -> Tensor:
    """Return T/N * sum of BCE(exp(wanted / T), exp(given / T)) of log-likelihoods [N]."""
    if not len(given):
        return given.sum() * 0.0
    w, g = (x.float().clamp(max=-1e-6) / temperature for x in (wanted, given))
    surprise = -(w.exp() * g + -torch.expm1(w) * torch.log(-torch.expm1(g)))
    return surprise.mean() * temperature


def _groups(batch: Batch) -> int:
    return int(torch.maximum(batch.teacher_group.max(), batch.student_group.max())) + 1


def _likelihoods(
    model: nn.Module, states: Tensor, ids: Tensor, places: Tensor, group: Tensor, width: int
) -> Tensor:
    """Return log-likelihoods [B * width]: of a group, the sum over its masked pieces."""
    transform, weight, bias = output_rows(model)
    hidden, labels = transform(states[places]), ids[places]
    parts = []
    for part, right in zip(torch.split(hidden, _ROWS), torch.split(labels, _ROWS), strict=True):
        logits = nn.functional.linear(part, weight, bias).float()
        parts.append(logits.gather(1, right[:, None])[:, 0] - logits.logsumexp(1))
    total = torch.zeros(len(ids) * width, device=ids.device)
    if not parts:
        return total
    rows = torch.arange(len(ids), device=ids.device)[:, None]
    return total.index_add(0, (rows * width + group)[places], torch.cat(parts))
