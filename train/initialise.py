"""Start a student from its teacher: rows for the new pieces, layers cut to the new width.

Nothing here preserves the teacher's function unless the shapes are equal: LayerNorm and attention
heads do not survive a cut. Which parts are worth most, measured.py tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rubert_lite.errors import InputError

from .hidden import layer_blocks
from .layers import Parts, layer_parts
from .student import encoder, hidden_size, input_rows, output_rows

Rows = Literal["random", "mean", "expected", "fvt"]
Layers = Literal["random", "select", "average"]
Cut = Literal["topleft", "pca"]
FROM_TEACHER: tuple[Rows, ...] = ("mean", "expected", "fvt")


@dataclass(frozen=True)
class Links:
    """How the pieces of the two vocabularies correspond."""

    splits: Sequence[Sequence[int]]  # student ids of each teacher piece (the T2S map)
    sources: Sequence[Sequence[int]]  # teacher ids of each student piece: itself, or its parts
    counts: Tensor | None = None  # float [V_t]: how often a teacher piece stands in the text


@torch.no_grad()
def initialise(
    student: nn.Module,
    teacher: nn.Module,
    links: Links,
    *,
    rows: Rows = "fvt",
    layers: Layers | Sequence[int] = "select",
    cut: Cut | Parts = "topleft",
) -> None:
    """Fill the student's parameters from the teacher's.

    rows   mean: a piece's row is the mean of the rows of all teacher pieces whose split contains it
           (arXiv 2205.02340, the authors' init_weights); fvt: its own row, or the mean of the rows
           of the teacher pieces it falls into (arXiv 2402.09977); expected: as mean, each teacher
           piece as often as it stands in the text (`links.counts`): the row that the teacher would
           have read, on average, where the student reads this piece; pieces that stand nowhere as
           fvt; random: untouched
    layers select: evenly spaced teacher layers; average: the mean of each block of layers; numbers:
           these layers, counted from 0
    cut    topleft: the first dimensions, as published; pca: the top principal directions of the
           teacher's rows, applied to every matrix that reads or writes the hidden state (worse: no
           LayerNorm survives it); Parts: these dimensions, heads and units (see measured_parts)
    Pieces without a source keep their random row. Raises InputError when the student is wider or
    deeper than the teacher: there is nothing to cut.
    """
    width, given = hidden_size(student), hidden_size(teacher)
    check_width(given, width)
    teacher_rows, teacher_bias = input_rows(teacher), output_rows(teacher)[2]
    basis = _basis(teacher_rows, width, cut)
    if rows != "random":
        fill_rows(student, teacher_rows, teacher_bias, links, rows=rows, basis=basis)
    if layers == "random":
        return
    _fill_embedding_parts(student, teacher, basis)
    deep, shallow = layer_parts(teacher), layer_parts(student)
    if layers == "average":
        blocks = layer_blocks(len(deep), len(shallow), "blocks")
        chosen = [[i - 1 for i in block] for block in blocks]
    else:
        even = selected_layers(len(deep), len(shallow))
        chosen = [[i] for i in (even if isinstance(layers, str) else layers)]
    for number, (target, sources) in enumerate(zip(shallow, chosen, strict=True)):
        inside = (cut.heads[number], cut.units[number]) if isinstance(cut, Parts) else (None, None)
        _fill_layer(target, [deep[i] for i in sources], basis, *inside)


def selected_layers(deep: int, shallow: int) -> list[int]:
    """Return evenly spaced layers, the first and the last among them, counted from 0.

    6 of 12 give 0, 2, 4, 7, 9, 11, DistilBERT's choice.
    """
    check_depth(deep, shallow)
    return [round(k * (deep - 1) / max(shallow - 1, 1)) for k in range(shallow)]


def check_width(wide: int, narrow: int) -> None:
    """Raise InputError for a student that is wider than its teacher."""
    if narrow > wide:
        raise InputError(
            f"student.hidden_size = {narrow} is above the teacher's {wide}: a start from the"
            " teacher needs a narrower student; use initial_rows and initial_layers = 'random'"
        )


def check_depth(deep: int, shallow: int) -> None:
    """Raise InputError for a student of more layers than its teacher's."""
    if shallow > deep:
        raise InputError(
            f"student.layers = {shallow} is above the teacher's {deep}: a start from the teacher"
            " needs a shallower student; use initial_layers = 'random'"
        )


def _basis(rows: Tensor, width: int, cut: Cut | Parts) -> Tensor:
    """Return the map [D_t, width] from the teacher's hidden space; identity for equal widths."""
    size = rows.shape[1]
    if isinstance(cut, Parts):
        return nn.functional.one_hot(cut.dimensions, size).t().to(rows)
    if cut == "topleft" or width == size:
        return torch.eye(size, width, device=rows.device)
    centred = rows.float() - rows.float().mean(0)
    _, vectors = torch.linalg.eigh(centred.t() @ centred)  # eigenvalues rise
    top = vectors.flip(1)[:, :width]
    # Rotating keeps length; a smaller space holds less of it, LayerNorm scales it back.
    directions: Tensor = top
    return directions


def fill_rows(
    student: nn.Module,
    teacher_rows: Tensor,
    teacher_bias: Tensor,
    links: Links,
    *,
    rows: Rows,
    basis: Tensor,
) -> None:
    """Fill the rows and biases [V] of the student's pieces; those without a source stay."""
    _, target, target_bias = output_rows(student)
    for piece, (found, weights) in enumerate(_sources(links, len(target), rows)):
        if found:
            share = (weights / weights.sum()).to(teacher_rows.device)
            target[piece] = share @ teacher_rows[found].float() @ basis
            target_bias[piece] = share @ teacher_bias[found].float()


def _sources(links: Links, size: int, rows: Rows) -> list[tuple[list[int], Tensor]]:
    """Return of each student piece the teacher pieces that make its row, and what each weighs."""
    own = [(list(s), torch.ones(len(s))) for s in links.sources]
    if rows == "fvt":
        return own
    counts = torch.ones(len(links.splits))
    if rows == "expected":
        assert links.counts is not None  # the caller's part
        counts = links.counts
    found: list[list[int]] = [[] for _ in range(size)]
    for teacher_id, split in enumerate(links.splits):
        if counts[teacher_id] > 0:
            for piece in set(split):
                found[piece].append(teacher_id)
    sources = [(ids, counts[ids]) for ids in found]
    if rows == "mean":  # as published: what is in no split keeps its random row
        return sources
    return [s if s[0] else o for s, o in zip(sources, own, strict=True)]


def _fill_embedding_parts(student: nn.Module, teacher: nn.Module, basis: Tensor) -> None:
    own, given = encoder(student).embeddings, encoder(teacher).embeddings
    s: Any = own
    t: Any = given
    positions = min(len(s.position_embeddings.weight), len(t.position_embeddings.weight))
    moved = t.position_embeddings.weight[:positions].float()
    kinds = getattr(t, "token_type_embeddings", None)
    own_kinds = getattr(s, "token_type_embeddings", None)
    if kinds is not None and own_kinds is not None:
        own_kinds.weight.copy_(kinds.weight[: len(own_kinds.weight)].float() @ basis)
    elif own_kinds is not None:  # the teacher has none: they add nothing
        own_kinds.weight.zero_()
    elif kinds is not None:  # DistilBERT has no token types: fold the first one into the positions
        moved = moved + kinds.weight[0].float()
    s.position_embeddings.weight[:positions] = moved @ basis
    _fill_norm(s.LayerNorm, [t.LayerNorm], basis)
    own_head, given_head = _head(student), _head(teacher)
    own_head[0].weight.copy_(basis.t() @ given_head[0].weight.float() @ basis)
    own_head[0].bias.copy_(given_head[0].bias.float() @ basis)
    _fill_norm(own_head[1], [given_head[1]], basis)


def _head(model: nn.Module) -> tuple[Any, Any]:
    m: Any = model
    if m.config.model_type == "bert":
        return m.cls.predictions.transform.dense, m.cls.predictions.transform.LayerNorm
    return m.vocab_transform, m.vocab_layer_norm


def _fill_layer(
    target: dict[str, Any],
    sources: list[dict[str, Any]],
    basis: Tensor,
    heads: Tensor | None,
    units: Tensor | None,
) -> None:
    """Cut the mean of some teacher layers to the student's sizes; `basis` serves the hidden state.

    Inside a layer `heads` (rows of the attention's matrices) and feed-forward `units` are taken, by
    default the first.
    """
    for index in range(3):
        into = [s["in"][index] for s in sources]
        _fill_linear(target["in"][index], into, read=basis, rows=heads)
    _fill_linear(target["out"], [s["out"] for s in sources], write=basis, columns=heads)
    _fill_linear(target["up"], [s["up"] for s in sources], read=basis, rows=units)
    _fill_linear(target["down"], [s["down"] for s in sources], write=basis, columns=units)
    for name in ("norm1", "norm2"):
        _fill_norm(target[name], [s[name] for s in sources], basis)


def _fill_linear(
    target: nn.Linear,
    sources: list[nn.Linear],
    *,
    read: Tensor | None = None,
    write: Tensor | None = None,
    rows: Tensor | None = None,
    columns: Tensor | None = None,
) -> None:
    weight = torch.stack([s.weight.float() for s in sources]).mean(0)
    bias = torch.stack([s.bias.float() for s in sources]).mean(0)
    if rows is not None:
        weight, bias = weight[rows], bias[rows]
    if columns is not None:
        weight = weight[:, columns]
    if read is not None:
        weight = weight @ read
    if write is not None:
        weight, bias = write.t() @ weight, bias @ write
    height, width = (min(a, b) for a, b in zip(weight.shape, target.weight.shape, strict=True))
    target.weight[:height, :width] = weight[:height, :width]
    target.bias[:height] = bias[:height]


def _fill_norm(target: nn.LayerNorm, sources: list[nn.LayerNorm], basis: Tensor) -> None:
    weight = torch.stack([s.weight.float() for s in sources]).mean(0)
    bias = torch.stack([s.bias.float() for s in sources]).mean(0)
    # A scale for each old dimension has no exact counterpart after a rotation: the mean share.
    target.weight.copy_(weight @ basis.square())
    target.bias.copy_(bias @ basis)
