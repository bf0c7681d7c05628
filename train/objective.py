"""The loss of one batch: what the student should say where, given an alignment with its teacher.

match   the student reads its own (masked) pieces; compared where one piece on each side covers the
        same characters (arXiv 2205.02340, "match"; by place, not by string)
reduce  the student reads the teacher's pieces split into its own; the vectors of a teacher piece's
        parts are summed, so that every teacher position is compared (same paper, "reduce")
plain   equal vocabularies and sequences: every position is compared
none    no comparison by pieces: masked-language modelling, or whole words (see span)
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from .batches import Batch
from .crossentropy import linear_cross_entropy
from .losses import (
    PieceMap,
    group_sum,
    kl,
    project_to_classes,
    reduce_map,
    tail_logits,
)
from .masking import Masking, mask_tokens
from .recipe import Heads, Pair, Recipe, Vocabularies
from .span import MaskedGroups, mask_groups, span_loss
from .states import Compared, hidden_losses, whole_words
from .student import encoder_states, max_length, output_rows


def batch_losses(
    batch: Batch,
    pair: Pair,
    heads: Heads,
    *,
    recipe: Recipe,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return the unweighted losses of a batch by name, each a scalar with a graph."""
    student, teacher, vocabularies = pair.student, pair.teacher, pair.vocabularies
    losses: dict[str, Tensor] = {}
    groups: MaskedGroups | None = None
    if recipe.span:
        groups = mask_groups(batch, vocabularies, share=recipe.mask_share, generator=generator)
        masked, positions = groups.student_ids, groups.student_places
    else:
        masked, positions = _masked(batch, vocabularies, recipe, generator)
    own_states: tuple[Tensor, ...] | None = None
    masks = bool(recipe.mlm or recipe.span or recipe.mask_teacher)
    if masks or recipe.alignment in ("match", "match-string", "plain"):
        inputs = masked if masks else batch.student_ids
        own_states = encoder_states(student, inputs, batch.student_mask)
    if recipe.mlm and own_states is not None:
        labels = batch.student_ids[positions]
        transform, weight, bias = output_rows(student)
        losses["mlm"] = linear_cross_entropy(
            transform(own_states[-1][positions]), weight, bias, labels
        )
    teacher_states: tuple[Tensor, ...] | None = None
    if teacher is not None and groups is not None and own_states is not None:
        with torch.no_grad():
            teacher_states = encoder_states(teacher, groups.teacher_ids, batch.teacher_mask)
        losses["span"] = span_loss(
            batch,
            groups,
            (teacher, teacher_states[-1]),
            (student, own_states[-1]),
            temperature=recipe.span_temperature,
        )
    if teacher is None or recipe.alignment == "none":
        return losses
    masked_places = positions if masks else torch.zeros_like(positions)
    # With words masked, a teacher that sees the masks has just read this very input.
    if teacher_states is None or not recipe.mask_teacher:
        teacher_ids = _teacher_input(batch, masked_places, recipe, vocabularies)
        with torch.no_grad():
            teacher_states = encoder_states(teacher, teacher_ids, batch.teacher_mask)
    if recipe.alignment in ("reduce", "reduce-map"):
        compared = _reduce(batch, pair, teacher_states, recipe=recipe, generator=generator)
    elif own_states is None:
        raise AssertionError("match and plain need the student's own states")
    else:
        kept = masked_places if recipe.compare == "masked" else batch.student_mask
        compared = _correspond(
            batch, own_states, teacher_states, kept, limit=recipe.positions, generator=generator
        )
    if recipe.kl:
        losses["kl"] = _kl_loss(compared, pair, teacher, recipe=recipe)
    if recipe.hidden or recipe.contrastive:
        # With reduce, the last entry is the transformed row for the output head, not a layer.
        if recipe.alignment in ("reduce", "reduce-map"):
            compared = replace(compared, student_states=compared.student_states[:-1])
        elif recipe.hidden_at == "words":
            compared = whole_words(batch, own_states or (), teacher_states)
        losses |= hidden_losses(compared, recipe, heads, generator)
    return losses


def _masked(
    batch: Batch, vocabularies: Vocabularies, recipe: Recipe, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mask pieces of the student's own text; see mask_tokens."""
    return mask_tokens(
        torch.where(batch.student_mask, batch.student_ids, vocabularies.pad_id),
        Masking(
            vocabularies.special,
            vocabularies.mask_id,
            vocabularies.counts,
            recipe.mask_exponent,
            recipe.mask_share,
        ),
        generator=generator,
    )


def total(losses: Mapping[str, Tensor], recipe: Recipe) -> Tensor:
    """Weigh the losses of a batch into one."""
    return torch.stack([value * getattr(recipe, name) for name, value in losses.items()]).sum()


def _teacher_input(
    batch: Batch, masked: Tensor, recipe: Recipe, vocabularies: Vocabularies
) -> Tensor:
    """Give the teacher the clean text, or mask every group of a place that was drawn.

    The student sees a mask at 80% of those, as BERT did; the teacher always.
    """
    if not recipe.mask_teacher:
        return batch.teacher_ids
    groups = int(torch.maximum(batch.teacher_group.max(), batch.student_group.max())) + 1
    hit = torch.zeros(len(masked), groups, dtype=torch.int32, device=masked.device)
    hit.scatter_add_(1, batch.student_group, (masked & batch.student_mask).int())
    covered = hit.gather(1, batch.teacher_group) > 0
    covered &= batch.teacher_mask
    return torch.where(covered, vocabularies.teacher_mask_id, batch.teacher_ids)


def _correspond(
    batch: Batch,
    own_states: tuple[Tensor, ...],
    teacher_states: tuple[Tensor, ...],
    kept: Tensor,
    *,
    limit: int,
    generator: torch.Generator,
) -> Compared:
    """Bring both models' vectors to at most `limit` matched places, of those `kept` [B, L_s]."""
    teacher_places = torch.nonzero(batch.teacher_matched & batch.teacher_mask)
    student_places = torch.nonzero(batch.student_matched & batch.student_mask)
    wanted = torch.nonzero(kept[student_places[:, 0], student_places[:, 1]])[:, 0]
    chosen = wanted[_sample(len(wanted), limit, generator)]
    t, s = teacher_places[chosen], student_places[chosen]
    return Compared(
        tuple(h[s[:, 0], s[:, 1]] for h in own_states),
        tuple(h[t[:, 0], t[:, 1]] for h in teacher_states),
        torch.ones(len(s), device=s.device),
    )


def _sample(count: int, limit: int, generator: torch.Generator) -> Tensor:
    if count <= limit:
        return torch.arange(count, device=generator.device)
    chosen = torch.randperm(count, generator=generator, device=generator.device)[:limit]
    return chosen.sort().values


def split_teacher_pieces(
    ids: Tensor, mask: Tensor, splits: PieceMap
) -> tuple[Tensor, Tensor, Tensor]:
    """Write the teacher's pieces in student pieces: ids [B, L], mask [B, L], and for each real
    student piece, in row-major order, the running number of the teacher piece that it comes from
    [M].
    """
    real = ids[mask]
    sizes = (splits.offsets[1:] - splits.offsets[:-1])[real]
    owner = torch.repeat_interleave(torch.arange(len(real), device=ids.device), sizes)
    first = torch.repeat_interleave(splits.offsets[real], sizes)
    within = torch.arange(len(owner), device=ids.device) - torch.repeat_interleave(
        sizes.cumsum(0) - sizes, sizes
    )
    pieces = splits.indices[first + within]
    rows = torch.nonzero(mask)[:, 0]
    lengths = torch.zeros(len(ids), dtype=torch.long, device=ids.device).index_add_(0, rows, sizes)
    new_mask = torch.arange(int(lengths.max()), device=ids.device)[None, :] < lengths[:, None]
    new_ids = torch.zeros(new_mask.shape, dtype=torch.long, device=ids.device)
    new_ids[new_mask] = pieces
    return new_ids, new_mask, owner


def _reduce(
    batch: Batch,
    pair: Pair,
    teacher_states: tuple[Tensor, ...],
    *,
    recipe: Recipe,
    generator: torch.Generator,
) -> Compared:
    student = pair.student
    limit = max_length(student)
    ids, mask, owner = split_teacher_pieces(
        batch.teacher_ids, batch.teacher_mask, pair.vocabularies.splits
    )
    count = int(batch.teacher_mask.sum())
    whole = torch.bincount(owner, minlength=count)
    if ids.shape[1] > limit:
        # The rare text that grows past the student: what does not fit whole is left out.
        kept = torch.nonzero(mask)[:, 1] < limit
        ids, mask, owner = ids[:, :limit], mask[:, :limit], owner[kept]
    states = encoder_states(student, ids, mask)
    sizes = torch.bincount(owner, minlength=count)
    chosen = _sample(count, recipe.positions, generator)
    chosen = chosen[(sizes[chosen] > 0) & (sizes[chosen] == whole[chosen])]
    mean = recipe.combine == "mean"
    # The output head works on transformed vectors; summing before or after it is the same only
    # there.
    transform, _, _ = output_rows(student)
    last = group_sum(transform(states[-1][mask]), owner, count, mean=mean)[chosen]
    wanted: tuple[Tensor, ...] = ()
    if recipe.hidden or recipe.contrastive:
        wanted = tuple(group_sum(h[mask], owner, count, mean=mean)[chosen] for h in states)
    scale = torch.ones_like(sizes) if mean else sizes
    return Compared(
        (*wanted, last),
        tuple(h[batch.teacher_mask][chosen] for h in teacher_states),
        scale[chosen].float(),
    )


def _kl_loss(compared: Compared, pair: Pair, teacher: nn.Module, *, recipe: Recipe) -> Tensor:
    student, vocabularies = pair.student, pair.vocabularies
    transform, weight, bias = output_rows(student)
    reduced = recipe.alignment in ("reduce", "reduce-map")
    # The reduced rows are transformed already, see _reduce; the bias counts once for every piece.
    rows = compared.student_states[-1] if reduced else transform(compared.student_states[-1])
    t_transform, t_weight, t_bias = output_rows(teacher)
    if recipe.alignment == "reduce-map":
        scores = torch.nn.functional.linear(rows, weight) + compared.group_sizes[:, None] * bias
        mapped = reduce_map(scores, vocabularies.mapped, mode=recipe.map_mode)
        with torch.no_grad():
            teacher_rows = t_transform(compared.teacher_states[-1])
            wanted = torch.nn.functional.linear(teacher_rows, t_weight, t_bias)
        return kl(
            wanted[:, vocabularies.mapped.teacher_ids], mapped, temperature=recipe.temperature
        )
    scores = project_to_classes(rows, weight, torch.zeros_like(bias), vocabularies.student_classes)
    class_bias = bias[vocabularies.student_classes]
    scores = scores + compared.group_sizes[:, None] * class_bias
    with torch.no_grad():
        teacher_rows = t_transform(compared.teacher_states[-1])
        wanted = project_to_classes(teacher_rows, t_weight, t_bias, vocabularies.teacher_classes)
    tail = None
    if recipe.tail:
        with torch.no_grad():
            everything = torch.nn.functional.linear(teacher_rows, t_weight, t_bias)
            t_tail = tail_logits(everything, vocabularies.teacher_classes, recipe.temperature)
        own = torch.nn.functional.linear(rows, weight) + compared.group_sizes[:, None] * bias
        tail = (t_tail, tail_logits(own, vocabularies.student_classes, recipe.temperature))
    return kl(wanted, scores, temperature=recipe.temperature, tail=tail)
