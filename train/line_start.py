"""What the stages that train encoders begin with: the models of a line and their vocabularies."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from rubert_lite.errors import ConfigError, InputError

from .batches import Texts, plan_epoch
from .config import StudentConfig
from .cooccurrence import count_pairs, ppmi_rows
from .folders import Line
from .initialise import (
    FROM_TEACHER,
    Cut,
    Layers,
    Links,
    check_depth,
    check_width,
    initialise,
    selected_layers,
)
from .layers import Parts, layer_parts, layer_stack
from .links import link, link_vocabularies
from .loading import load_masked_lm
from .measured import measured_layers, measured_parts
from .precision import autocast
from .recipe import Pair
from .shards import iter_shards
from .student import Shape, build, default_device, freeze, hidden_size, output_rows
from .validate import validate

logger = logging.getLogger(__name__)

# Standard deviation of such rows: large against a step of Adam, so that they are not washed out.
_COOCCURRENCE_SCALE = 0.1
_MEASURED, _TOKENS = 4, 4096  # batches that tell, pieces of each: layers differ by tenths of a nat


def load_teacher(line: Line) -> torch.nn.Module | None:
    """Load the line's teacher, if it has one; its weights are not trained."""
    if not line.teacher:
        return None
    revision = line.config.teacher.revision or None
    return freeze(load_masked_lm(line.teacher, revision=revision))


def vocabularies(line: Line) -> tuple[dict[str, Any], dict[str, Any], list[int]]:
    """Read the teacher's tokenizer, the student's, and the teacher id of each student piece."""
    folder = line.folder("02-vocabulary")
    base, own, note = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("base-tokenizer.json", "tokenizer.json", "vocabulary.json")
    )
    return base, own, note["teacher_ids"]


def start_student(line: Line, teacher: torch.nn.Module | None, *, resumed: bool) -> torch.nn.Module:
    """Build a student and give it its first weights, unless a checkpoint has later ones."""
    c = line.config
    base, own, kept = vocabularies(line)
    student = _build(line, len(kept))
    initial = c.student.initial_rows
    if resumed:
        return student
    if teacher is not None:
        rows, pieces = len(output_rows(teacher)[1]), max(base["model"]["vocab"].values()) + 1
        if rows < pieces:
            raise ConfigError(
                [
                    f"vocabulary.tokenizer: {pieces} pieces, the teacher has rows for {rows}:"
                    " expected its own tokenizer"
                ]
            )
        links = link(base, own, kept)
        if initial == "expected":
            counts = piece_counts(line.folder("03-shards"), rows, side="teacher")
            links = replace(links, counts=counts)
        layers, cut = _measure(line, teacher, links)
        initialise(
            student,
            teacher,
            links,
            rows="random" if initial == "cooccurrence" else initial,
            layers=layers,
            cut=cut,
        )
    if initial == "cooccurrence":
        _fill_from_cooccurrence(student, line.folder("03-shards"))
    return student


def _build(line: Line, pieces: int, **changes: int) -> torch.nn.Module:
    settings = line.config.student.model_dump(exclude={"initial_rows", "initial_layers", "cut"})
    torch.manual_seed(line.config.distil.seed)
    return build(Shape(vocab_size=pieces, **settings | changes))


def _measure(
    line: Line, teacher: torch.nn.Module, links: Links
) -> tuple[Layers | list[int], Cut | Parts]:
    """Choose layers and parts of the teacher, as far as the configuration leaves it to measurement.

    What they are worth is told by a student as deep and wide as the teacher.
    """
    c = line.config.student
    if c.initial_layers != "measured" and c.cut != "measured":
        return c.initial_layers, c.cut
    size = _inner_sizes(teacher)
    check_width(size["hidden_size"], c.hidden_size)
    check_depth(size["layers"], c.layers)
    if c.cut == "measured":
        _check_heads(c, size)
    whole = _build(line, len(links.sources), **size)
    assert c.initial_rows in FROM_TEACHER  # the configuration is checked
    initialise(whole, teacher, links, rows=c.initial_rows)
    pair = join_models(line, whole, None).to(default_device())
    texts = Texts.open(line.folder("03-shards"), "train")
    layers = selected_layers(size["layers"], c.layers)
    if c.initial_layers == "measured":
        with autocast(line.config.distil.precision, default_device()):  # as it will be trained
            layers = measured_layers(
                whole, c.layers, lambda: validate(texts, pair, batches=_MEASURED)["mlm"]
            )
        logger.info("the student starts with layers %s of its teacher", layers)
    if c.cut != "measured":
        return layers, c.cut
    stack = layer_stack(whole)
    stack.layer = torch.nn.ModuleList(stack.layer[i] for i in layers)
    planned = islice(plan_epoch(texts.lengths, tokens=_TOKENS, seed=1, epoch=0), _MEASURED)
    parts = measured_parts(
        whole.eval(),
        (texts.batch(indices).to(default_device()) for indices in planned),
        width=c.hidden_size,
        units=c.ffn_size,
        head_size=c.hidden_size // c.heads,
    )
    return layers, parts.to(torch.device("cpu"))


def _inner_sizes(teacher: torch.nn.Module) -> dict[str, int]:
    layers = layer_parts(teacher)
    config: Any = teacher.config
    return {
        "layers": len(layers),
        "hidden_size": hidden_size(teacher),
        "heads": config.num_attention_heads,
        "ffn_size": layers[0]["up"].out_features,
    }


def _check_heads(c: StudentConfig, teacher: Mapping[str, int]) -> None:
    own, given = c.hidden_size // c.heads, teacher["hidden_size"] // teacher["heads"]
    if own != given or c.ffn_size > teacher["ffn_size"]:
        raise InputError(
            f"student: heads of {own}, ffn_size = {c.ffn_size}; the teacher has heads of {given},"
            f" {teacher['ffn_size']} units: cut = 'measured' takes whole heads and no more units"
            " than there are; choose such sizes, or cut = 'pca' or 'topleft'"
        )


def join_models(line: Line, student: torch.nn.Module, teacher: torch.nn.Module | None) -> Pair:
    """Put models and vocabularies together."""
    base, own, kept = vocabularies(line)
    counts = None
    if line.config.distil.mask_exponent:
        counts = piece_counts(line.folder("03-shards"), len(kept))
    links = link(base, own, kept)
    return Pair(student, teacher, link_vocabularies(base, own, kept, links, counts))


def _fill_from_cooccurrence(student: torch.nn.Module, folder: Path) -> None:
    rows = output_rows(student)[1]
    shards = list(iter_shards(folder, "train"))
    size, width = rows.shape
    pairs = count_pairs((s.student for s in shards), size, total=len(shards))
    with torch.no_grad():
        rows.copy_(ppmi_rows(*pairs, size, width) * _COOCCURRENCE_SCALE)


def piece_counts(
    folder: Path, size: int, *, side: Literal["student", "teacher"] = "student"
) -> torch.Tensor:
    """Count the pieces of one side of the training shards: float [size]."""
    counts = np.zeros(size, dtype=np.int64)
    for shard in iter_shards(folder, "train"):
        counts += np.bincount(getattr(shard, side).ids, minlength=size)
    return torch.from_numpy(counts).float()
