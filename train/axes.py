"""The axes that sort the dimensions of a student's vectors, so that few of them say the most.

Turned by orthonormal axes, vectors keep their cosines; only their prefixes change.
"""

import io
import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from .batches import Texts, gather
from .encoders import ROTATION
from .items import Items, principal_rotation
from .stage import write_whole
from .student import hidden_size, mean_pooled

AXES = "axes.safetensors"  # of a checkpoint; export turns the mean-pooled vectors by it

_ROWS = 256  # texts read together
_SAMPLE = 40_000  # texts whose vectors are sorted, at most
_TWINS = 20_000  # pairs of texts that should have one vector, at most
# What twins have in common, against what texts hold: of several the one that lost least where
# half the dimensions lose most, on dev sets (train/LOG.md).
_COMMON = 4.0


def write_axes(
    student: nn.Module, texts: Texts | Items, items: Items, out: Path, *, seed: int
) -> dict[str, float]:
    """Write the axes of a student's vectors, in half precision, as out/axes.safetensors [D, D].

    Eigenvectors of S + 4 C, the largest first: S is the second moment of the unit vectors of a
    sample of `texts`, C that between items of one pair (a text, its translation, the same with
    typing errors). So a dimension comes early that texts have much of, and twins have alike.
    Return the share of squared length that the first half and quarter hold, before and after.
    """
    chance = np.random.default_rng(seed)
    count = len(texts.lengths)
    vectors = pooled_vectors(student, texts, chance.permutation(count)[:_SAMPLE])
    moment = vectors.T @ vectors / len(vectors)
    twins = np.flatnonzero(items.pairs[1:] == items.pairs[:-1])
    twins = chance.permutation(twins)[:_TWINS]
    if len(twins):
        one, other = (pooled_vectors(student, items, rows) for rows in (twins, twins + 1))
        common = one.T @ other / len(one)
        moment = moment + _COMMON * (common + common.T) / 2
    _, found = np.linalg.eigh(moment.astype(np.float64))
    axes = found[:, ::-1].T.astype(np.float16)
    save_file({"weight": np.ascontiguousarray(axes)}, out / AXES)
    width = len(axes)
    shares: dict[str, float] = {}
    for name, values in (("before", vectors), ("after", vectors @ axes.T.astype(np.float32))):
        power = (values**2).sum(0) / (values**2).sum()
        shares |= {f"held_{n}_{name}": float(power[:n].sum()) for n in (width // 2, width // 4)}
    return {name: round(value, 4) for name, value in shares.items()}


@torch.no_grad()
def pooled_vectors(
    student: nn.Module, texts: Texts | Items, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the unit mean-pooled vectors of some texts, [rows, D]."""
    student.eval()
    device = next(student.parameters()).device
    order = np.argsort(texts.lengths[rows], kind="stable")  # little padding
    found = np.empty((len(rows), hidden_size(student)), np.float32)
    starts = range(0, len(rows), _ROWS)
    for start in tqdm(starts, desc="vectors for axes", unit="batch", disable=None):
        chosen = order[start : start + _ROWS]
        ids, mask = _read(texts, rows[chosen])
        pooled = mean_pooled(student, ids.to(device), mask.to(device)).float()
        found[chosen] = F.normalize(pooled, dim=1).cpu().numpy()
    return found


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
        rotation = rotation @ axes.T
    return rotation


def write_rotation(rotation: NDArray[np.float32], out: Path) -> None:
    """Write out/rotation.npy, all of it or nothing."""
    data = io.BytesIO()
    np.save(data, rotation)
    write_whole(out / ROTATION, data.getvalue())


def nearest_rotation(
    student: nn.Module, items: Items, *, seed: int, principal: bool = False
) -> NDArray[np.float32]:
    """Return the orthonormal [teacher's width, D] nearest to how a student answers to its teacher.

    That is the polar factor U V^T of the linear map that brings the teacher's vectors nearest to
    the student's, in squares over a sample of the items. Of a student that learnt vectors turned
    by a rotation that is lost, it finds that again, nearly, since what the student does not know
    shortens its answers more than it turns them. For a student of another teacher, whose answers
    miss what only this one says, `principal` keeps to the D principal axes of this one's vectors.
    """
    rows = np.random.default_rng(seed).permutation(len(items))[:_SAMPLE]
    vectors = pooled_vectors(student, items, rows).astype(np.float64)
    targets = items.targets.vectors(items.pairs[rows]).astype(np.float64)
    kept = principal_rotation(targets, vectors.shape[1]) if principal else np.eye(targets.shape[1])
    answers = np.linalg.lstsq(targets @ kept, vectors, rcond=1e-6)[0]
    left, _, right = np.linalg.svd(answers, full_matrices=False)
    rotation: NDArray[np.float32] = (kept @ left @ right).astype(np.float32)
    return rotation


def keep_axes(source: Path, out: Path) -> None:
    """Copy the axes of a checkpoint, if it has any, to one whose vectors are the same."""
    if (source / AXES).is_file():
        shutil.copyfile(source / AXES, out / AXES)
