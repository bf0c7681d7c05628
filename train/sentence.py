"""Distil the vectors of a sentence encoder into a student, in one language or across two."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from rubert_lite.errors import ConfigError

from .axes import fit_map, write_map, write_rotation
from .bag import Bag
from .batches import Batch, Texts, plan
from .encoders import ROTATION
from .former import FormerAxes
from .graded import GradedBatch, graded_loss
from .hidden import hidden_cosine
from .items import Items, SentenceBatch, find_rotation
from .labels import LabelBatch, LabelHeads
from .loop import Job, Losses, Schedule, accelerator_of, run_job
from .masking import hide_pieces
from .objective import batch_losses, total
from .recipe import Heads, Pair
from .resident import ResidentItems, ResidentTexts, items_on, texts_on
from .rows import four_bit_rows, row_table
from .sentence_losses import ranking, similarity_kl
from .sentence_recipe import Sentences, Sources
from .sentence_validate import comparable, validate_sentences
from .student import hidden_size, mean_pooled
from .validate import validate


class _Step(NamedTuple):
    pairs: SentenceBatch
    plain: Batch | None
    labelled: LabelBatch | None
    graded: GradedBatch | None


def distil_sentences(
    pair: Pair,
    items: Items,
    valid: Items,
    sources: Sources,
    *,
    sentences: Sentences,
    schedule: Schedule,
    out: Path,
    former: FormerAxes | None = None,
    finish: Callable[[nn.Module], None] | None = None,
) -> dict[str, float]:
    """Train `pair.student` in place; return the last validation. See `run_job` for the files.

    With the projection "axes" it is read through `former`, whose vectors of pieces learn along.
    `finish` changes the student after the last step; then it is judged once more.

    `pair.teacher`, if any, is the masked language model of the language losses: the sentence
    teachers are in the targets of `items`. Where the student's own vector is compared with a
    rotated target, `out/rotation.npy` [teacher's width, student's width] is written.
    """
    accelerator = accelerator_of(schedule)
    device = accelerator.device
    pair = pair.to(device)
    language = sources.language
    modules: dict[str, nn.Module] = {"student": pair.student}
    has_plain = len(items.targets.caches) > 1
    width = hidden_size(pair.student)
    projector = rotation = behind = None

    def fit() -> None:
        if behind is not None and rotation is not None:
            fit_map(behind, pair.student, items, rotation, seed=schedule.seed)

    if sentences.projection == "linear":
        torch.manual_seed(schedule.seed)
        projector = nn.Linear(width, items.targets.width, bias=False).to(device)
        modules["projector"] = projector
    elif sentences.projection == "axes":
        assert former is not None, "line_sentence.py opens them"
        if (table := former.to(device).pieces) is not None:
            modules["pieces"] = table
    else:
        rotation = torch.from_numpy(_rotation(items, width, sentences, schedule.seed, out)).to(
            device
        )
    if sentences.projection == "map":
        modules["map"] = behind = nn.Linear(width, width, bias=False).to(device)
        fit()

    def said(ids: Tensor, mask: Tensor) -> Tensor:
        pooled = mean_pooled(pair.student, ids, mask)
        if former is not None:
            pooled = former(pooled, ids, mask)
        return pooled if behind is None else behind(pooled)

    bag = None
    if sentences.bag:
        torch.manual_seed(schedule.seed)
        counts = None if language is None else language.counts
        if counts is None:
            raise ConfigError(["sentence.bag needs plain text: set sentence.language above 0"])
        bag = Bag(width, counts, pair.vocabularies.special.cpu()).to(device)
        modules["bag"] = bag
    heads = None
    if sentences.labels:
        torch.manual_seed(schedule.seed)
        if sources.labelled is None:
            raise ConfigError(["sentence.labels is above 0: give sentence.tasks"])
        ends = sources.labelled.ends
        heads = LabelHeads(width, ends, sentences.prefixes).to(device)
        modules["heads"] = heads
    if sentences.grades and sources.graded is None:
        raise ConfigError(["sentence.grades is above 0: give sentence.tasks with a pair"])

    def losses(step: _Step, generator: torch.Generator) -> Losses:
        batch, plain = step.pairs.to(device).rotated(rotation), step.plain
        pooled = said(batch.ids, batch.mask)
        parts = sentence_losses(pooled, batch, projector, sentences=sentences)
        value = torch.stack([parts[n] * getattr(sentences, n) for n in parts]).sum()
        pieces = batch.mask.sum()
        if bag is not None:
            parts["bag"] = bag(pooled, batch.ids, batch.mask)
            value = value + sentences.bag * parts["bag"]
        if plain is not None and language is not None:
            plain = plain.to(device)
            spoken = batch_losses(
                plain, pair, Heads(None), recipe=language.recipe, generator=generator
            )
            value = value + sentences.language * total(spoken, language.recipe)
            pieces = pieces + plain.student_mask.sum()
            if bag is not None and not has_plain:
                read = plain.student_ids, plain.student_mask
                spoken["bag_plain"] = bag(said(*read), *read)
                value = value + sentences.bag * spoken["bag_plain"]
            parts |= spoken
        if heads is not None and step.labelled is not None:
            told = step.labelled.to(device)
            shown = hide_pieces(told.mask, sentences.word_dropout, generator=generator)
            parts["labels"] = heads(said(told.ids, shown), told.classes)
            value = value + sentences.labels * parts["labels"]
            pieces = pieces + told.mask.sum()
        if step.graded is not None:
            judged = step.graded.to(device)
            shown = hide_pieces(judged.mask, sentences.word_dropout, generator=generator)
            vectors = said(judged.ids, shown)
            parts["grades"] = graded_loss(
                vectors, judged, sentences.prefixes, temperature=sentences.temperature
            )
            value = value + sentences.grades * parts["grades"]
            pieces = pieces + judged.mask.sum()
        return Losses(parts, value, pieces)

    def judge() -> dict[str, float]:
        pair.student.eval()
        scores = validate_sentences(
            said, valid, projector, rotation, device=device, sentences=sentences
        )
        if language is not None and language.valid is not None:
            scores |= validate(language.valid, pair)
        return scores

    def draw(skip: int) -> Iterator[_Step]:
        texts = texts_on(language.texts, device) if language is not None else None
        drawn = items_on(items, device), texts, sources
        return _draw(*drawn, sentences, schedule, accelerator=accelerator, skip=skip)

    job = Job(
        "sentence",
        modules,
        draw,
        losses,
        judge if len(valid) else None,
    )

    def rows() -> ExitStack:
        stack = ExitStack()
        if sentences.row_bits:
            stack.enter_context(four_bit_rows(row_table(pair.student)))
            if former is not None and former.pieces is not None:
                stack.enter_context(four_bit_rows(former.pieces))
        return stack

    with rows():
        found = run_job(job, accelerator, schedule=schedule, out=out)
    if finish is not None:
        finish(pair.student)
        fit()
        with rows():
            found |= judge() if len(valid) else {}
    if behind is not None:
        write_map(behind, out)
    return found


def _rotation(
    items: Items, width: int, sentences: Sentences, seed: int, out: Path
) -> NDArray[np.float32]:
    """Find the rotation of the targets, or read the one that a resumed run began with."""
    file = out / ROTATION
    if not file.is_file():
        found = find_rotation(items.targets, width, seed=seed, whitening=sentences.whitening)
        write_rotation(found, out)
    rotation: NDArray[np.float32] = np.load(file)
    return rotation


def sentence_losses(
    pooled: Tensor, batch: SentenceBatch, projector: nn.Linear | None, *, sentences: Sentences
) -> dict[str, Tensor]:
    """Return the unweighted losses of pooled vectors [B, D]: means over the prefixes and all."""
    widths = (*sentences.prefixes, pooled.shape[1])
    found: dict[str, list[Tensor]] = {}
    for width in widths:
        targets, vectors = comparable(pooled, batch.targets, width, projector)
        if sentences.regression:
            found.setdefault("regression", []).append(hidden_cosine(targets, vectors))
        if sentences.contrastive:
            loss = ranking(targets, vectors, batch.groups, temperature=sentences.temperature)
            found.setdefault("contrastive", []).append(loss)
        if sentences.similarity:
            loss = similarity_kl(
                batch.targets, vectors, batch.groups, temperature=sentences.temperature
            )
            found.setdefault("similarity", []).append(loss)
    return {name: torch.stack(values).mean() for name, values in found.items()}


def _draw(
    items: Items | ResidentItems,
    texts: Texts | ResidentTexts | None,
    sources: Sources,
    sentences: Sentences,
    schedule: Schedule,
    *,
    accelerator: Accelerator,
    skip: int,
) -> Iterator[_Step]:
    """Deal the planned steps out to the processes in turn."""
    world, rank = accelerator.num_processes, accelerator.process_index

    def planned(lengths: NDArray[np.int32] | None, tokens: int) -> Iterator[NDArray[Any] | None]:
        if lengths is None:
            return repeat(None)
        return plan(lengths, tokens=tokens, seed=schedule.seed, skip=skip * world)

    labelled = sources.labelled if sentences.labels else None
    graded = sources.graded if sentences.grades else None
    drawn = zip(
        planned(items.lengths, schedule.tokens_per_batch),
        planned(texts.lengths if texts else None, sentences.language_tokens),
        planned(labelled.lengths if labelled else None, sentences.labels_tokens),
        planned(graded.lengths if graded else None, sentences.grades_tokens),
        strict=True,
    )
    for pairs, plain, told, judged in islice(drawn, rank, None, world):
        assert pairs is not None
        yield _Step(
            items.batch(pairs),
            texts.batch(plain) if texts and plain is not None else None,
            labelled.batch(told) if labelled and told is not None else None,
            graded.batch(judged) if graded and judged is not None else None,
        )
