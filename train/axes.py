"""The axes that sort the dimensions of a student's vectors, so that few of them say the most.

Turned by orthonormal axes, vectors keep their cosines; only their prefixes change. A map that is
learnt first (learnt_axes.py) changes the cosines, too.
"""

import io
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from .batches import Texts, gather
from .encoders import MAP, ROTATION
from .graded import GradedPairs
from .items import Items, principal_rotation
from .learnt_axes import AxesLearning, GradedVectors, learn_map, mapped, sorting, unit
from .stage import write_whole
from .student import hidden_size, mean_pooled
from .targets import ridge

AXES = "axes.safetensors"  # of a checkpoint; export turns the mean-pooled vectors by it

_ROWS = 256  # texts read together
_SAMPLE = 40_000  # texts whose vectors are sorted, at most
_TWINS = 20_000  # pairs of texts that should have one vector, at most


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
) -> dict[str, float]:
    """Write the axes of a student's vectors, in half precision, as out/axes.safetensors [D, D].

    They sort (`sorting`) by a sample of `texts`; twins are items of one pair (a text, its
    translation, the same with typing errors). With `learning` the vectors go through a learnt map
    before, and the axes are both in one; a map that learns on `prefixes` has sorted them already.
    So they do through out/map.npy, if the student learnt with it behind.
    Return the share of squared length that the first half and quarter hold, before and after.
    """
    chance = np.random.default_rng(seed)
    count = len(texts.lengths)
    vectors = pooled_vectors(student, texts, chance.permutation(count)[:_SAMPLE])
    rows = np.flatnonzero(items.pairs[1:] == items.pairs[:-1])
    rows = chance.permutation(rows)[:_TWINS]
    twins = None
    if len(rows):
        twins = pooled_vectors(student, items, rows), pooled_vectors(student, items, rows + 1)
    held = {"before": vectors}
    learnt = read_map(out, vectors.shape[1])
    vectors, twins = mapped(vectors, twins, learnt)
    if learning is not None:
        judged = None if graded is None else _graded_vectors(student, graded, learnt)
        found = learn_map(vectors, twins, judged, learning=learning, seed=seed, prefixes=prefixes)
        vectors, twins = mapped(vectors, twins, found)
        learnt = learnt @ found
    if not (learning and learning.prefixes and prefixes):
        order = sorting(vectors, twins)
        vectors, learnt = vectors @ order.T, learnt @ order.T
    held["after"] = vectors
    axes = learnt.T.astype(np.float16)
    save_file({"weight": np.ascontiguousarray(axes)}, out / AXES)
    width = len(axes)
    shares: dict[str, float] = {}
    for name, values in held.items():
        power = (values**2).sum(0) / (values**2).sum()
        shares |= {f"held_{n}_{name}": float(power[:n].sum()) for n in (width // 2, width // 4)}
    return {name: round(value, 4) for name, value in shares.items()}


def _graded_vectors(
    student: nn.Module, graded: GradedPairs, behind: NDArray[np.float32]
) -> GradedVectors:
    """Return the vectors of both texts of every graded pair, behind a map."""
    order = np.argsort(graded.lengths, kind="stable")  # little padding
    first = np.empty((len(order), hidden_size(student)), np.float32)
    second = np.empty_like(first)
    for start in tqdm(
        range(0, len(order), _ROWS // 2), desc="graded pairs", unit="batch", disable=None
    ):
        chosen = order[start : start + _ROWS // 2]
        batch = graded.batch(chosen)
        first[chosen], second[chosen] = np.split(_pooled(student, batch.ids, batch.mask), 2)
    sides = unit(first @ behind), unit(second @ behind)
    return GradedVectors(*sides, graded.grades, graded.tasks)


def pooled_vectors(
    student: nn.Module, texts: Texts | Items, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the unit mean-pooled vectors of some texts, [rows, D]."""
    order = np.argsort(texts.lengths[rows], kind="stable")  # little padding
    found = np.empty((len(rows), hidden_size(student)), np.float32)
    starts = range(0, len(rows), _ROWS)
    for start in tqdm(starts, desc="vectors for axes", unit="batch", disable=None):
        chosen = order[start : start + _ROWS]
        found[chosen] = _pooled(student, *_read(texts, rows[chosen]))
    return found


@torch.no_grad()
def _pooled(student: nn.Module, ids: Tensor, mask: Tensor) -> NDArray[np.float32]:
    """Return the unit mean-pooled vectors of a batch, [B, D]."""
    student.eval()
    device = next(student.parameters()).device
    pooled = mean_pooled(student, ids.to(device), mask.to(device)).float()
    vectors: NDArray[np.float32] = F.normalize(pooled, dim=1).cpu().numpy()
    return vectors


def _read(texts: Texts | Items, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return ids and mask, [B, L] each; of items without the vectors that belong to them."""
    if isinstance(texts, Texts):
        batch = texts.batch(rows)
        return batch.student_ids, batch.student_mask
    ids, mask = gather(texts.ids, texts.starts[rows], texts.lengths[rows], texts.pad_id)
    return torch.from_numpy(ids), torch.from_numpy(mask)


def open_rotation(file: Path) -> NDArray[np.float32]:
    """Read rotation.npy [teacher's width, D], turned by the axes that lie beside it.

    It brings a teacher's vectors to those that the exported student gives.
    """
    rotation: NDArray[np.float32] = np.load(file)
    if (file.parent / AXES).is_file():
        axes = load_file(file.parent / AXES)["weight"].astype(np.float32)
        # What was compared with the teacher's was behind the map.
        rotation = rotation @ np.linalg.pinv(read_map(file.parent, len(axes))) @ axes.T
    return rotation


def read_map(folder: Path, width: int) -> NDArray[np.float32]:
    """Return the map [D, D] that a student learnt with behind it; of most the identity."""
    if not (folder / MAP).is_file():
        return np.eye(width, dtype=np.float32)
    found: NDArray[np.float32] = np.load(folder / MAP)
    return found


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
    if (source / AXES).is_file():
        shutil.copyfile(source / AXES, out / AXES)
