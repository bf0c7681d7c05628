"""What the sentence stage reads: tokenised texts on disk, and the vectors they should get."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from tqdm import tqdm

from .batches import gather
from .corpus_text import is_valid, text_hash
from .noise import add_typos, drop_punctuation
from .pairs import read_lines
from .targets import Targets

_CHUNK = 8192  # pairs worked on together
_SAMPLE = 100_000  # vectors that decide the rotation
_LEAST_POWER = 1e-6  # of the first axis': what is below is noise of float16
SPLITS = ("train", "valid")


@dataclass(frozen=True)
class Reading:
    """Which texts the student reads besides its own side of each pair."""

    max_length: int = 256  # pieces
    noise_share: float = 0.0  # of the texts, once more with typing errors
    bare_share: float = 0.0  # of the texts, once more without punctuation
    teacher_text_share: float = 0.0  # of the pairs, the teacher's side, too
    valid_share: float = 0.003  # by hash of the student's text
    seed: int = 42


@dataclass(frozen=True)
class SentenceBatch:
    """Padded texts and the vectors they should get."""

    ids: Tensor  # [B, L] int64
    mask: Tensor  # [B, L] bool
    targets: Tensor  # [B, D] float16, of the teacher's width
    groups: Tensor  # [B] number of the text that the teacher read

    def to(self, device: torch.device) -> "SentenceBatch":
        """Move all tensors to a device."""
        tensors = (self.ids, self.mask, self.targets, self.groups)
        return SentenceBatch(*(t.to(device, non_blocking=True) for t in tensors))

    def rotated(self, rotation: Tensor | None) -> "SentenceBatch":
        """Turn the targets by `rotation` [D, width], in float32 whatever the autocast state."""
        targets = self.targets.float()
        if rotation is not None:
            with torch.autocast(targets.device.type, enabled=False):
                targets = targets @ rotation
        return replace(self, targets=targets)


@dataclass(frozen=True)
class Items:
    """The texts of one split."""

    ids: NDArray[Any]
    starts: NDArray[np.int64]  # [items + 1]
    pairs: NDArray[np.int64]  # [items]
    targets: Targets
    pad_id: int

    @classmethod
    def open(cls, folder: Path, split: str, targets: Targets, *, pad_id: int) -> "Items":
        """Open what `write_items` wrote."""
        return cls(
            np.load(folder / f"{split}.ids.npy", mmap_mode="r"),
            np.load(folder / f"{split}.starts.npy"),
            np.load(folder / f"{split}.pairs.npy"),
            targets,
            pad_id,
        )

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """Pieces of each item."""
        return np.diff(self.starts).astype(np.int32)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.pairs)

    def batch(self, indices: NDArray[np.int64]) -> SentenceBatch:
        """Collect items into a padded batch, with their teachers' vectors as they are."""
        ids, mask = gather(self.ids, self.starts[indices], self.lengths[indices], self.pad_id)
        pairs = self.pairs[indices]
        return SentenceBatch(
            torch.from_numpy(ids),
            torch.from_numpy(mask),
            torch.from_numpy(self.targets.vectors(pairs)),
            torch.from_numpy(self.targets.groups(pairs)),
        )


def principal_rotation(
    vectors: NDArray[Any], width: int, *, whitening: float = 0.0
) -> NDArray[np.float32]:
    """Return an orthonormal [D, width] that keeps most of the vectors [n, D], largest parts first.

    Eigenvectors of their uncentred second moment: cosines of the rotated vectors are those of the
    vectors, up to what is cut, and no other prefix of that width keeps more of their squared
    length (Eckart-Young). Past D the columns are 0. With `whitening` each column is divided by that
    power of its root mean square, as a share of the first one's: 1 makes all of them alike.
    """
    wide = np.asarray(vectors, dtype=np.float64)
    powers, axes = np.linalg.eigh(wide.T @ wide)
    rotation = np.zeros((wide.shape[1], width), dtype=np.float32)
    kept = axes[:, ::-1][:, :width]
    if whitening:
        shares = np.maximum(powers[::-1][: kept.shape[1]] / powers[-1], _LEAST_POWER)
        kept = kept * shares ** (-whitening / 2)
    rotation[:, : kept.shape[1]] = kept
    return rotation


def write_items(
    pairs: Path,
    tokenizer: Tokenizer,
    out: Path,
    *,
    reading: Reading,
    unjudged: int = -1,
) -> None:
    """Tokenise the texts of a pairs stage for the student; memory does not grow with the pairs.

    Of the source with the number `unjudged` what would be held out is left out.
    """
    sources = np.load(pairs / "sources.npy", mmap_mode="r")
    tokenizer.enable_truncation(reading.max_length)
    tokenizer.no_padding()
    dtype = np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.int32
    writers = {s: _Writer(out, s, dtype) for s in SPLITS}
    chance_of = random.Random(reading.seed)
    texts = zip(read_lines(pairs / "teacher.txt"), read_lines(pairs / "student.txt"), strict=True)
    bar = tqdm(total=len(sources), desc="tokenise", unit="pair", disable=None)
    start = 0
    while chunk := list(islice(texts, _CHUNK)):
        chosen: list[tuple[str, str, int]] = []
        for number, (teacher, student) in enumerate(chunk, start):
            valid = is_valid(text_hash(student), reading.valid_share)
            if valid and sources[number] == unjudged:
                continue  # else it might be a held-out text of another source
            chosen.append(("valid" if valid else "train", student, number))
            if valid:
                continue
            if chance_of.random() < reading.noise_share:
                chosen.append(("train", add_typos(student, chance_of), number))
            if reading.bare_share and chance_of.random() < reading.bare_share:
                chosen.append(("train", drop_punctuation(student), number))
            if teacher != student and chance_of.random() < reading.teacher_text_share:
                chosen.append(("train", teacher, number))
        encoded = tokenizer.encode_batch([text for _, text, _ in chosen])
        for (split, _, number), pieces in zip(chosen, encoded, strict=True):
            writers[split].add(pieces.ids, number)
        start += len(chunk)
        bar.update(len(chunk))
    bar.close()
    for writer in writers.values():
        writer.close()


def find_rotation(
    targets: Targets, width: int, *, seed: int, whitening: float = 0.0
) -> NDArray[np.float32]:
    """Return the rotation [D, width] of the teachers' vectors, by a sample of them."""
    count = len(targets.rows)
    chance = np.random.default_rng(seed)
    sample = chance.choice(count, size=min(_SAMPLE, count), replace=False)
    return principal_rotation(targets.vectors(np.sort(sample)), width, whitening=whitening)


class _Writer:
    """Appends items to raw files, then gives each the header of an array."""

    def __init__(self, out: Path, split: str, dtype: Any) -> None:
        self.ids = _Raw(out / f"{split}.ids.npy", dtype)
        self.starts = _Raw(out / f"{split}.starts.npy", np.int64)
        self.pairs = _Raw(out / f"{split}.pairs.npy", np.int64)
        self.end = 0
        self.starts.add([0])

    def add(self, ids: Sequence[int], pair: int) -> None:
        self.end += len(ids)
        self.ids.add(ids)
        self.starts.add([self.end])
        self.pairs.add([pair])

    def close(self) -> None:
        for raw in (self.ids, self.starts, self.pairs):
            raw.close()


class _Raw:
    """Numbers on disk that become an array without ever being in memory at once."""

    def __init__(self, path: Path, dtype: Any) -> None:
        self.path, self.dtype = path, dtype
        self.raw = path.with_suffix(".raw")
        self.file: IO[bytes] = self.raw.open("wb")

    def add(self, values: Sequence[int]) -> None:
        self.file.write(np.asarray(values, dtype=self.dtype).tobytes())

    def close(self) -> None:
        self.file.close()
        empty = not self.raw.stat().st_size  # which cannot be mapped
        mapped = np.empty(0, self.dtype) if empty else np.memmap(self.raw, self.dtype, mode="r")
        np.save(self.path, mapped)
        self.raw.unlink()
