"""Navec's word vectors as a sentence encoder: a weighted mean of the words of a text.

The wheel of natasha has them (250,000 Russian words, GloVe on news of a billion, 300 dimensions,
MIT; the package navec reads the file). Words weigh a / (a + p) by their frequency p, and the
direction that all texts share is taken out (S. Arora et al., "A simple but tough-to-beat baseline
for sentence embeddings", ICLR 2017), here that of the vocabulary's own mean: no corpus decides it.
"""

import re
from collections.abc import Callable, Sequence
from importlib import metadata
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rubert_lite.errors import InputError

NAVEC = "navec"
WHEEL = "natasha"  # the package whose wheel has the vectors
_FILE = "natasha/data/emb/navec_news_v1_1B_250K_300d_100q.tar"
_WORD = re.compile(r"[а-яё]+|[a-z]+|\d+|[^\w\s]")
_WEIGHT = 1e-3


def open_navec() -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Return a function from texts to unit vectors [texts, 300]; 0 for a text of unknown words.

    Raises InputError where the packages are not installed.
    """
    try:
        from navec import Navec

        file = Path(str(metadata.distribution(WHEEL).locate_file(_FILE)))
        found = Navec.load(file)
    except (ImportError, OSError) as error:
        raise InputError(
            f"{NAVEC} is named as a sentence encoder and not installed: pip install --no-deps"
            f" {NAVEC} {WHEEL}"
        ) from error
    return weighted_mean(found.vocab.words, found.vocab.counts, found.pq.unpack())


def weighted_mean(
    words: Sequence[str], counts: Sequence[int], vectors: NDArray[np.float32]
) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Make an encoder of vectors [words, D] of words that a corpus has so many times."""
    index = {word: i for i, word in enumerate(words)}
    shares = np.asarray(counts, dtype=np.float64) / np.sum(counts, dtype=np.float64)
    weighted = (vectors * (_WEIGHT / (_WEIGHT + shares))[:, None]).astype(np.float32)
    common = shares @ weighted
    common = (common / np.linalg.norm(common)).astype(np.float32)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        ids = [_known(text, index) for text in texts]
        out = np.zeros((len(texts), vectors.shape[1]), dtype=np.float32)
        rows = np.repeat(np.arange(len(texts)), [len(i) for i in ids])
        flat = np.fromiter(chain.from_iterable(ids), dtype=np.int64, count=len(rows))
        np.add.at(out, rows, weighted[flat])
        out -= np.outer(out @ common, common)
        scaled: NDArray[np.float32] = out / np.maximum(np.linalg.norm(out, axis=1), 1e-6)[:, None]
        return scaled

    return encode


def _known(text: str, index: dict[str, int]) -> list[int]:
    """Return the words of a text that have vectors, `ё` read as `е` where only that has one."""
    words = _WORD.findall(text.lower())
    found = (index.get(w, index.get(w.replace("ё", "е"))) for w in words)
    return [i for i in found if i is not None]
