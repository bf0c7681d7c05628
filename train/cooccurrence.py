"""Start the rows of pieces from the company they keep: positive PMI and a truncated SVD.

A cheap start for students without a teacher: minutes over the whole corpus give pieces of similar
use similar rows, which masked language modelling takes long to find on a CPU. Source of the method:
Levy and Goldberg, "Neural word embedding as implicit matrix factorization" (2014), with smoothed
context counts and symmetric singular values (Levy, Goldberg and Dagan 2015).
"""

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from .shards import Side
from .student import default_device

_ITERATIONS = 3  # of subspaces
_GPU_PIECES = 200_000_000  # by estimate, their keys take 30 GB of a GPU
_MERGE = 8  # shards counted between two merges: bounds the memory


def count_pairs(
    sides: Iterable[Side], size: int, *, window: int = 5, total: int | None = None
) -> tuple[Tensor, Tensor]:
    """Count pieces that stand within `window` of each other in a text; nearer ones count more.

    Returns keys [pairs] = piece * size + later piece, rising, and weights [pairs]: the sum of
    1 / distance over the corpus.
    """
    keys, weights = np.empty(0, np.int64), np.empty(0, np.float32)
    if default_device().type == "cuda":
        sides = list(sides)
        if sum(len(s.ids) for s in sides) <= _GPU_PIECES:
            return _count_on_gpu(sides, size, window)
    waiting = [(keys, weights)]
    for side in tqdm(sides, total=total, desc="pairs", unit="shard", disable=None):
        ids = np.asarray(side.ids).astype(np.int64)
        lengths = np.diff(side.starts)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        for distance in range(1, window + 1):
            same = owner[distance:] == owner[:-distance]
            found = ids[:-distance][same] * size + ids[distance:][same]
            unique, counts = np.unique(found, return_counts=True)
            waiting.append((unique, (counts / distance).astype(np.float32)))
        if len(waiting) > _MERGE * window:
            waiting = [_merged(waiting)]
    keys, weights = _merged(waiting)
    return torch.from_numpy(keys), torch.from_numpy(weights)


def _count_on_gpu(sides: Sequence[Side], size: int, window: int) -> tuple[Tensor, Tensor]:
    """Count all texts at once: the keys of 30 M pieces take 1.2 GB of the GPU."""
    lengths = np.concatenate([np.diff(s.starts) for s in sides])
    flat = np.concatenate([np.asarray(s.ids).astype(np.int64) for s in sides])
    device = default_device()
    ids = torch.from_numpy(flat).to(device)
    owner = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)).to(device)
    keys, weights = [], []
    for distance in range(1, window + 1):
        same = owner[distance:] == owner[:-distance]
        found = ids[:-distance][same] * size + ids[distance:][same]
        unique, counts = torch.unique(found, return_counts=True)
        keys.append(unique)
        weights.append(counts.float() / distance)
    all_keys, inverse = torch.unique(torch.cat(keys), return_inverse=True)
    summed = torch.zeros(len(all_keys), device=device).index_add_(0, inverse, torch.cat(weights))
    return all_keys, summed


def _merged(
    parts: list[tuple[NDArray[np.int64], NDArray[np.float32]]],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    keys = np.concatenate([k for k, _ in parts])
    weights = np.concatenate([w for _, w in parts])
    unique, inverse = np.unique(keys, return_inverse=True)
    return unique, np.bincount(inverse, weights, len(unique)).astype(np.float32)


def ppmi_rows(
    keys: Tensor,
    weights: Tensor,
    size: int,
    width: int,
    *,
    smoothing: float = 0.75,
    seed: int = 42,
) -> Tensor:
    """Return rows [size, width] with mean 0 and standard deviation 1 over all of them.

    PPMI(a, b) = max(0, log(p(a, b) / (p(a) p'(b)))), p' from counts to the power `smoothing`;
    rows = U sqrt(S) of its `width` greatest singular values. Pieces without a pair get zeros.
    """
    device = keys.device
    pairs = torch.stack([keys // size, keys % size])
    both = torch.cat([pairs, pairs.flip(0)], dim=1)  # a piece is company for its company
    mass = torch.cat([weights, weights])
    counts = torch.sparse_coo_tensor(both, mass, (size, size), check_invariants=True).coalesce()
    (rows, columns), mass = counts.indices(), counts.values()
    alone = torch.zeros(size, device=device).index_add_(0, rows, mass)
    smooth = alone.pow(smoothing)
    expected = alone[rows] * (smooth / smooth.sum())[columns]
    ppmi = (mass / expected).log().clamp(min=0)
    matrix = torch.sparse_coo_tensor(counts.indices(), ppmi, (size, size), check_invariants=True)
    torch.manual_seed(seed)
    u, s = _left_vectors(matrix, min(width + 32, size))
    found = u[:, :width] * s[:width].sqrt()
    seen = alone > 0
    found[seen] -= found[seen].mean(0)
    found[~seen] = 0.0
    scaled: Tensor = found / found[seen].std()
    return scaled.cpu()


def _left_vectors(matrix: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return the first left singular vectors [n, width] and values [width] of a sparse [n, n].

    Randomised subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 5.1), as
    torch.svd_lowrank does it, which reads no compressed rows: they take a third of the time.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        across = matrix.coalesce().to_sparse_csr()
        down = matrix.t().coalesce().to_sparse_csr()
    start = torch.randn(matrix.shape[1], width).to(matrix.device)
    basis = torch.linalg.qr(across @ start).Q
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(down @ basis).Q
        basis = torch.linalg.qr(across @ basis).Q
    # The small side's vectors from its Gram matrix: so wide a decomposition takes a GPU seconds.
    projected = (down @ basis).double()
    values, vectors = torch.linalg.eigh(projected.T @ projected)
    s = values.flip(0).clamp(min=0).sqrt().float()
    return basis @ vectors.flip(1).float(), s
