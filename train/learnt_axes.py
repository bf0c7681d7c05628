"""A linear map of a student's vectors, learnt when its training is over.

Export multiplies the mean-pooled vectors by axes anyway, so that few dimensions say the most. That
they are orthonormal is no need: a map of the right kind costs no byte and no time more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from .sentence_losses import grade_order, ranking

_BATCH = 512  # pairs, and texts whose cosines should stay
# What twins have in common, against what texts hold: of several the one that lost least where
# half the dimensions lose most, on dev sets (train/LOG.md).
_COMMON = 4.0


@dataclass(frozen=True)
class AxesLearning:
    """How the map is learnt; weights of its losses."""

    # Power of the whitening it begins with (0: none, 1: whole). Principal axes of texts are scaled
    # by their second moment to minus half of it: what all texts have in common counts for less.
    whitening: float = 0.2
    twins: float = 1.0  # of finding a text's twin (a translation, the same misspelt) in a batch
    grades: float = 0.0  # of the order of the likeness of graded pairs
    # Of the mean squared change of cosines between any texts, against those after the whitening
    stay: float = 1000.0
    # Of the same losses on prefixes of the vectors, each: the map begins from the sorted dimensions
    prefixes: float = 0.0
    steps: int = 300
    learning_rate: float = 1e-3
    temperature: float = 0.05
    width: int = 0  # of the mapped vectors: the first sorted dimensions; 0: as wide as they are


Twins = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class GradedVectors:
    """Unit vectors of graded pairs."""

    first: NDArray[np.float32]  # [n, D]
    second: NDArray[np.float32]  # [n, D]
    grades: NDArray[np.float32]  # [n]
    tasks: NDArray[np.int64]  # [n]: grades of different tasks are not compared

    def mapped(self, by: NDArray[np.float32]) -> "GradedVectors":
        """Return the vectors multiplied `by` [D, D], of unit length."""
        return replace(self, first=unit(self.first @ by), second=unit(self.second @ by))


def learn_map(
    texts: NDArray[np.float32],
    twins: Twins | None,
    graded: GradedVectors | None,
    *,
    learning: AxesLearning,
    seed: int,
    prefixes: Sequence[int] = (),
) -> NDArray[np.float32]:
    """Learn a map [D, width] by which row vectors are multiplied, of Frobenius norm sqrt(width).

    `texts` [n, D] and `twins` (two times [m, D]; row i of one belongs to row i of the other) are
    unit vectors. Partial whitening first (full whitening: Su et al. 2021, arXiv 2103.15316), then
    Adam on the sum of the weighted losses from there, its rate falling to 0. With a weight of
    `prefixes`, or cut to a width, the first dimensions say the most, as `sorting` puts them, and go
    on doing so.
    """
    start = whitening(texts, learning.whitening)
    prefixes = prefixes if learning.prefixes else ()
    if prefixes or learning.width:
        start = start @ sorting(*mapped(texts, twins, start)).T
    parts = _losses(
        F.normalize(torch.from_numpy(texts @ start), dim=1),
        None if twins is None else tuple(torch.from_numpy(side @ start) for side in twins),
        graded,
        torch.from_numpy(start),
        learning,
    )
    found = torch.eye(len(start), learning.width or len(start), requires_grad=True)
    optimizer = torch.optim.Adam([found], lr=learning.learning_rate)
    chance = np.random.default_rng(seed)
    for step in tqdm(range(learning.steps), desc="axes", unit="step", disable=None):
        for group in optimizer.param_groups:
            group["lr"] = learning.learning_rate * (1 - step / learning.steps)
        optimizer.zero_grad()
        values = [part(found, chance) for part in parts]
        for width in prefixes:
            values += [learning.prefixes * part(found[:, :width], chance) for part in parts]
        torch.autograd.backward(values)
        optimizer.step()
    learnt: NDArray[np.float32] = start @ found.detach().numpy()
    return learnt * np.float32(np.sqrt(learnt.shape[1]) / np.linalg.norm(learnt))


def mapped(
    texts: NDArray[np.float32],
    twins: Twins | None,
    by: NDArray[np.float32],
) -> tuple[NDArray[np.float32], Twins | None]:
    """Return the vectors of texts and twins multiplied `by` [D, D], of unit length."""
    return unit(texts @ by), twins and (unit(twins[0] @ by), unit(twins[1] @ by))


def sorting(texts: NDArray[np.float32], twins: Twins | None) -> NDArray[np.float32]:
    """Return orthonormal axes [D, D], a row each, the one that says the most first.

    Eigenvectors of S + 4 C, the largest first: S is the second moment of the unit vectors of
    texts [n, D], C that between twins. So a dimension comes early that texts have much of, and
    twins have alike.
    """
    moment = texts.T @ texts / len(texts)
    if twins is not None:
        common = twins[0].T @ twins[1] / len(twins[0])
        moment = moment + _COMMON * (common + common.T) / 2
    _, found = np.linalg.eigh(moment.astype(np.float64))
    return found[:, ::-1].T.astype(np.float32)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return row vectors of unit length; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: NDArray[np.float32] = vectors / np.maximum(lengths, np.float32(1e-12))
    return found


def whitening(texts: NDArray[np.float32], power: float) -> NDArray[np.float32]:
    """Return the symmetric [D, D] that scales the principal axes of `texts` [n, D].

    Each axis by its eigenvalue of the uncentred second moment to the power of -`power` / 2.
    """
    wide = texts.astype(np.float64)
    values, axes = np.linalg.eigh(wide.T @ wide / len(wide))
    values = np.maximum(values, values[-1] * 1e-6)  # an axis without texts is not blown up
    scaled: NDArray[np.float32] = ((axes * values ** (-power / 2)) @ axes.T).astype(np.float32)
    return scaled


_Part = Callable[[Tensor, np.random.Generator], Tensor]


def _losses(
    texts: Tensor,
    twins: tuple[Tensor, ...] | None,
    graded: GradedVectors | None,
    start: Tensor,
    learning: AxesLearning,
) -> list[_Part]:
    """Return the losses that have a weight and data, each of a map and a source of chance."""

    def draw(count: int, chance: np.random.Generator) -> NDArray[np.int64]:
        return chance.choice(count, min(count, _BATCH), replace=False)

    def stay(found: Tensor, chance: np.random.Generator) -> Tensor:
        chosen = texts[draw(len(texts), chance)]
        moved = F.normalize(chosen @ found, dim=1)
        return learning.stay * F.mse_loss(moved @ moved.T, chosen @ chosen.T)

    parts: list[_Part] = [stay]
    if twins is not None and learning.twins:
        one, other = twins
        groups = torch.arange(_BATCH)

        def twin(found: Tensor, chance: np.random.Generator) -> Tensor:
            rows = draw(len(one), chance)
            sides = one[rows] @ found, other[rows] @ found
            loss = ranking(*sides, groups[: len(rows)], temperature=learning.temperature)
            return learning.twins * loss

        parts.append(twin)
    if graded is not None and learning.grades:
        first, second = (torch.from_numpy(v) @ start for v in (graded.first, graded.second))
        grades, tasks = torch.from_numpy(graded.grades), torch.from_numpy(graded.tasks)

        def order(found: Tensor, chance: np.random.Generator) -> Tensor:
            rows = draw(len(first), chance)
            cosines = F.cosine_similarity(first[rows] @ found, second[rows] @ found)
            loss = grade_order(cosines, grades[rows], tasks[rows], temperature=learning.temperature)
            return learning.grades * loss

        parts.append(order)
    return parts
