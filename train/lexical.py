"""A vector for every piece, summed over a text beside what the student says: which words it has.

The mean of a student's states has little room for names and rare words, and those decide which
passage answers a question. Pieces begin as sums of random vectors of their letter n-grams: so sums
over texts have cosines like those of the bags of n-grams, up to 1 / sqrt(width) (random indexing;
n-grams as the parts of words: arXiv 1607.04606), and forms of one word are alike. Frequent pieces
are short (weights a / (a + p): Arora et al. 2017, "A Simple but Tough-to-Beat Baseline"). Then
they learn, beside the student, whose weights stay, to find a text's translation, and the text that
a span was cut from (the inverse cloze task, arXiv 1906.00300).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from rubert_lite.wordpiece import SPECIAL_PIECES

from .learnt_axes import unit
from .rows import round_through
from .sentence_losses import ranking

LEXICAL = "lexical.safetensors"  # of a checkpoint; export reads it with the axes

_GRAMS = (3, 4, 5)  # letters
_OWN = 0.15  # of a piece's squared length: random, for it alone
_FREQUENT = 3e-4  # share of the text at which a piece is half as long as a rare one


@dataclass(frozen=True)
class LexicalLearning:
    """How the vectors of pieces are learnt."""

    width: int = 128
    share: float = 0.3  # of the squared length of a text's vector, before the map of both
    twins: float = 0.2  # share of the steps on twins; the others are on spans and their texts
    steps: int = 1500
    batch: int = 1024  # pairs of a step
    learning_rate: float = 1e-3
    temperature: float = 0.05
    row_bits: int = 0  # 4: they are trained for the export's 4-bit table, and rounded


@dataclass(frozen=True)
class Said:
    """What a student says of n texts, and their pieces."""

    vectors: NDArray[np.float32]  # [n, D]
    bags: csr_matrix  # [n, V]: how often each piece stands there

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.vectors)


def bags_of(texts: Sequence[NDArray[np.integer]], size: int) -> csr_matrix:
    """Count the pieces of texts: [texts, size]."""
    starts = np.cumsum([0, *map(len, texts)])
    flat = np.concatenate([np.zeros(0, np.int64), *texts]).astype(np.int64)
    counted = csr_matrix((np.ones(len(flat), np.float32), flat, starts), shape=(len(texts), size))
    counted.sum_duplicates()
    return counted


def spelled(
    pieces: Sequence[str], counts: NDArray[np.integer], width: int, *, seed: int
) -> NDArray[np.float32]:
    """Return the vectors [V, width] that pieces begin with, by their letters and counts [V].

    Those of special pieces are 0: what every text has says nothing of any.
    """
    chance = np.random.default_rng(seed)
    shares = (np.asarray(counts, np.float64) + 1) / (np.sum(counts) + len(pieces))
    known: dict[str, int] = {}
    rows, columns = [], []
    for row, piece in enumerate(pieces):
        for gram in sorted(_grams(piece)):
            rows.append(row)
            columns.append(known.setdefault(gram, len(known)))
    spelling = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(pieces), len(known)))
    rarity = -np.log(spelling.T @ shares)
    grams = chance.normal(size=(len(known), width)) * rarity[:, None]
    letters = unit((spelling @ grams).astype(np.float32))
    own = unit(chance.normal(size=(len(pieces), width)).astype(np.float32))
    found = np.sqrt(1 - _OWN) * letters + np.sqrt(_OWN) * own
    found *= (_FREQUENT / (_FREQUENT + shares))[:, None]
    found[[row for row, piece in enumerate(pieces) if piece in SPECIAL_PIECES]] = 0
    vectors: NDArray[np.float32] = found.astype(np.float32)
    return vectors


def _grams(piece: str) -> set[str]:
    """Return the letter n-grams of a piece, the beginning of a word marked; itself if short."""
    text = piece.removeprefix("##") if piece.startswith("##") else f"<{piece}"
    return {text[i : i + n] for n in _GRAMS for i in range(len(text) - n + 1)} or {text}


def sums(rows: NDArray[np.float32], bags: csr_matrix) -> NDArray[np.float32]:
    """Return the unit sums [n, width] of the vectors of the pieces of texts; zeros stay zeros."""
    return unit(bags @ rows)


def joined(
    said: Said, rows: NDArray[np.float32], by: NDArray[np.float32], share: float
) -> NDArray[np.float32]:
    """Return what was said, multiplied `by` [D, D], beside the sums: [n, D + width].

    `share` is that of the sums in the squared length, where the others have a length of 1.
    """
    parts = (said.vectors @ by) * np.sqrt(1 - share), sums(rows, said.bags) * np.sqrt(share)
    both: NDArray[np.float32] = np.concatenate(parts, axis=1).astype(np.float32)
    return both


def learn_rows(
    start: NDArray[np.float32],
    twins: tuple[Said, Said] | None,
    spans: tuple[Said, Said] | None,
    *,
    by: NDArray[np.float32],
    learning: LexicalLearning,
    seed: int,
) -> NDArray[np.float32]:
    """Return vectors of pieces [V, width], learnt from `start` beside what the student says.

    `by` [D, D] multiplies its unit vectors before. Adam on the mean cross-entropy of finding each
    text's partner in the batch, its rate falling to 0. Rows that are 0 stay 0. With `row_bits` they
    are read, and returned, as 4 bits hold them.
    """
    chance = np.random.default_rng(seed)
    kinds = [pair for pair in (twins, spans) if pair is not None and len(pair[0])]
    chances = [1.0] if len(kinds) == 1 else [learning.twins, 1 - learning.twins]
    rows = torch.tensor(start, requires_grad=True)
    kept = torch.from_numpy((start != 0).any(1, keepdims=True).astype(np.float32))
    optimizer = torch.optim.Adam([rows], lr=learning.learning_rate)
    weights = np.sqrt(1 - learning.share), np.sqrt(learning.share)

    def shown(table: Tensor) -> Tensor:
        return round_through(table * kept) if learning.row_bits else table * kept

    def read(said: Said, chosen: NDArray[np.int64], table: Tensor) -> Tensor:
        own = torch.from_numpy((said.vectors[chosen] @ by).astype(np.float32))
        parts = own, F.normalize(_bag_sums(table, said.bags[chosen]), dim=1)
        return torch.cat([p * float(w) for p, w in zip(parts, weights, strict=True)], dim=1)

    steps = learning.steps if kinds else 0
    for step in tqdm(range(steps), desc="pieces beside", unit="step", disable=None):
        for group in optimizer.param_groups:
            group["lr"] = learning.learning_rate * (1 - step / steps)
        one, other = kinds[chance.choice(len(kinds), p=chances)]
        chosen = chance.choice(len(one), min(len(one), learning.batch), replace=False)
        optimizer.zero_grad()
        table = shown(rows)
        loss = ranking(
            read(one, chosen, table),
            read(other, chosen, table),
            torch.arange(len(chosen)),
            temperature=learning.temperature,
        )
        torch.autograd.backward([loss])
        optimizer.step()
    found: NDArray[np.float32] = shown(rows.detach()).numpy()
    return found


def _bag_sums(rows: Tensor, bags: csr_matrix) -> Tensor:
    return F.embedding_bag(
        torch.from_numpy(bags.indices.astype(np.int64)),
        rows,
        torch.from_numpy(bags.indptr[:-1].astype(np.int64)),
        mode="sum",
        per_sample_weights=torch.from_numpy(bags.data),
    )


def write_rows(rows: NDArray[np.float32], out: Path) -> None:
    """Write out/lexical.safetensors: `weight` [V, width] in half precision."""
    save_file({"weight": np.ascontiguousarray(rows.astype(np.float16))}, out / LEXICAL)
