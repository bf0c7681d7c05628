"""The axes that sort the dimensions of a student's vectors, so that few of them say the most.

Turned by orthonormal axes, vectors keep their cosines; only their prefixes change. A map that is
learnt first (learnt_axes.py) changes the cosines, too.
"""

import io
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from rubert_lite.errors import InputError

from .batches import Texts
from .encoders import AXES, MAP, ROTATION
from .graded import GradedPairs
from .items import Items, principal_rotation
from .learnt_axes import AxesLearning, GradedVectors, Twins, learn_map, mapped, sorting, unit
from .lexical import LEXICAL, Said
from .lexical_axes import Lexical, Sample, learn_lexical_axes, read_spans
from .pooled import Pieces, piece_lists, pooled_lists, pooled_vectors
from .stage import write_whole
from .targets import ridge

_SAMPLE = 40_000  # texts whose vectors are sorted, at most
_TWINS = 20_000  # pairs of texts that should have one vector, at most
_LEXICAL_TWINS = 80_000  # where vectors of pieces are learnt, too: 20,000 were too few for English


def write_axes(
    student: nn.Module,
    texts: Texts | Items,
    items: Items,
    out: Path,
    *,
    seed: int,
    learning: AxesLearning | None = None,
    graded: GradedPairs | None = None,
    prefixes: Sequence[int] = (),
    lexical: Lexical | None = None,
) -> dict[str, float]:
    """Write the axes of a student's vectors, in half precision, as out/axes.safetensors [D, D].

    They sort (`sorting`) by a sample of `texts`; twins are items of one pair (a text, its
    translation, the same with typing errors). With `learning` the vectors go through a learnt map
    before, and the axes are both in one; a map that learns on `prefixes` has sorted them already.
    So they do through out/map.npy, if the student learnt with it behind. With `lexical` vectors of
    the pieces are learnt, too, and one map of both: axes [D, D + width], see learn_lexical_axes;
    what stands behind a map is joined as it is.
    Return the share of squared length that the first half and quarter hold, before and after.
    """
    chance = np.random.default_rng(seed)
    chosen = chance.permutation(len(texts.lengths))[:_SAMPLE]
    said = pooled_vectors(student, texts, chosen)
    rows = np.flatnonzero(items.pairs[1:] == items.pairs[:-1])
    rows = chance.permutation(rows)[: _LEXICAL_TWINS if lexical else _TWINS]
    alike: Twins | None = None
    if len(rows):
        alike = pooled_vectors(student, items, rows), pooled_vectors(student, items, rows + 1)
    judged = None if graded is None else _graded_vectors(student, graded)
    learnt = read_map(out, said.shape[1])
    few = alike and (alike[0][:_TWINS], alike[1][:_TWINS])
    vectors, twins = mapped(said, few, learnt)
    if learning is not None and not (lexical and (out / MAP).is_file()):
        # Vectors of pieces change what is said before it is sorted.
        parts = () if lexical else prefixes
        given = judged and judged.mapped(learnt)
        found = learn_map(vectors, twins, given, learning=learning, seed=seed, prefixes=parts)
        vectors, twins = mapped(vectors, twins, found)
        learnt = learnt @ found
    if lexical is not None:
        assert learning is not None, "contradictions.py refuses it"
        sample = Sample(
            lexical.said(said, piece_lists(texts, chosen)),
            alike and _said(lexical, alike, (piece_lists(items, r) for r in (rows, rows + 1))),
            _said(lexical, (judged.first, judged.second), _sides(graded)) if judged else None,
            judged,
        )
        learnt, vectors = learn_lexical_axes(
            sample,
            read_spans(student, texts, lexical, seed=seed),
            learnt,
            out,
            lexical=lexical,
            learning=learning,
            prefixes=prefixes,
            seed=seed,
        )
    elif not (learning and learning.prefixes and prefixes):
        order = sorting(vectors, twins)
        vectors, learnt = vectors @ order.T, learnt @ order.T
    axes = learnt.T.astype(np.float16)
    save_file({"weight": np.ascontiguousarray(axes)}, out / AXES)
    width = len(axes)
    shares: dict[str, float] = {}
    for name, values in {"before": said, "after": vectors}.items():
        power = (values**2).sum(0) / (values**2).sum()
        shares |= {f"held_{n}_{name}": float(power[:n].sum()) for n in (width // 2, width // 4)}
    return {name: round(value, 4) for name, value in shares.items()}


def _graded_vectors(student: nn.Module, graded: GradedPairs) -> GradedVectors:
    """Return the vectors of both texts of every graded pair."""
    first, second = (pooled_lists(student, side) for side in _sides(graded))
    return GradedVectors(first, second, graded.grades, graded.tasks)


def _sides(graded: GradedPairs | None) -> tuple[list[Pieces], list[Pieces]]:
    """Return the pieces of the first texts of all graded pairs, and of the second."""
    pairs = graded.texts if graded is not None else ()
    return [first for first, _ in pairs], [second for _, second in pairs]


def _said(lexical: Lexical, vectors: Twins, texts: Iterable[Sequence[Pieces]]) -> tuple[Said, Said]:
    one, other = (lexical.said(v, t) for v, t in zip(vectors, texts, strict=True))
    return one, other


def read_map(folder: Path, width: int) -> NDArray[np.float32]:
    """Return the map [D, D] that a student learnt with behind it; of most the identity."""
    if not (folder / MAP).is_file():
        return np.eye(width, dtype=np.float32)
    found: NDArray[np.float32] = np.load(folder / MAP)
    return found


def read_axes(checkpoint: Path) -> NDArray[np.float32]:
    """Read the axes of a checkpoint, [rows, D] or [rows, D + width]; InputError if it has none."""
    file = checkpoint / AXES
    if not file.is_file():
        raise InputError(f"{file}: no such file: take a checkpoint of a sentence stage")
    return read_weight(file)


def read_weight(file: Path) -> NDArray[np.float32]:
    """Read a file of one matrix, `weight`; InputError for anything else."""
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
    if set(tensors) != {"weight"} or tensors["weight"].ndim != 2:
        raise InputError(f"{file}: has {', '.join(tensors)}, expected weight, a matrix")
    found = tensors["weight"].astype(np.float32)
    if not np.isfinite(found).all():
        raise InputError(f"{file}: is not finite: take an earlier checkpoint")
    return found


def copy_map(former: Path, out: Path, width: int) -> None:
    """Write out/map.npy [D, D] from the axes of another checkpoint.

    Raises InputError where it has none, or others than [D, D].
    """
    axes = read_axes(former)
    if axes.shape != (width, width):
        raise InputError(
            f"{former / AXES}: {list(axes.shape)}, expected [{width}, {width}]: take a checkpoint"
            " of the student's width, without vectors of pieces"
        )
    _write_array(axes.T, out / MAP)


def write_map(behind: nn.Linear, out: Path) -> None:
    """Write out/map.npy [D, D], by which row vectors are multiplied."""
    _write_array(behind.weight.detach().float().cpu().numpy().T, out / MAP)


def fit_map(
    behind: nn.Linear, student: nn.Module, items: Items, rotation: Tensor, *, seed: int
) -> None:
    """Make the map behind a student, of all that are linear, the one nearest to its targets.

    Ridge regression of the rotated unit targets on what it says, over a sample of the items.
    """
    rows = np.random.default_rng(seed).permutation(len(items))[:_SAMPLE]
    vectors = pooled_vectors(student, items, rows)
    known = items.targets.vectors(items.pairs[rows]).astype(np.float32)
    found = ridge(vectors, unit(known @ rotation.cpu().numpy()))
    with torch.no_grad():
        behind.weight.copy_(torch.from_numpy(found.T))


def write_rotation(rotation: NDArray[np.float32], out: Path) -> None:
    """Write out/rotation.npy, all of it or nothing."""
    _write_array(rotation, out / ROTATION)


def _write_array(values: NDArray[np.float32], file: Path) -> None:
    data = io.BytesIO()
    np.save(data, values)
    write_whole(file, data.getvalue())


def nearest_rotation(
    student: nn.Module,
    items: Items,
    *,
    seed: int,
    principal: bool = False,
    whitening: float = 0.0,
) -> NDArray[np.float32]:
    """Return the orthonormal [teacher's width, D] nearest to how a student answers to its teacher.

    That is the polar factor U V^T of the linear map that brings the teacher's vectors nearest to
    the student's, in squares over a sample of the items. Of a student that learnt vectors turned
    by a rotation that is lost, it finds that again, nearly, since what the student does not know
    shortens its answers more than it turns them. For a student of another teacher, whose answers
    miss what only this one says, `principal` keeps to the D principal axes of this one's vectors;
    with `whitening` (see principal_rotation) always: orthonormal behind the evened axes.
    """
    rows = np.random.default_rng(seed).permutation(len(items))[:_SAMPLE]
    vectors = pooled_vectors(student, items, rows).astype(np.float64)
    targets = items.targets.vectors(items.pairs[rows]).astype(np.float64)
    kept = np.eye(targets.shape[1], dtype=np.float32)
    if principal or whitening:
        kept = principal_rotation(targets, vectors.shape[1], whitening=whitening)
    answers = np.linalg.lstsq(targets @ kept, vectors, rcond=1e-6)[0]
    left, _, right = np.linalg.svd(answers, full_matrices=False)
    rotation: NDArray[np.float32] = (kept @ left @ right).astype(np.float32)
    return rotation


def keep_axes(source: Path, out: Path) -> None:
    """Copy the axes of a checkpoint, if it has any, to one whose vectors are the same."""
    for name in (AXES, LEXICAL):
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
