"""What a student has to beat: encoders of equal bytes that need no training by gradient."""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from tokenizers import Tokenizer

from rubert_lite.errors import InputError

from .items import principal_rotation
from .pairs import read_lines
from .tasks import Encode, Vectors, unit
from .vectors import VectorCache

_CHUNK = 8192
_RIDGE = 1.0  # added to the diagonal of the normal equations, in texts
_LEVELS = 127


def hashed_tfidf(texts: Iterable[str], *, budget: int, width: int, limit: int = 200_000) -> Encode:
    """Return an encoder of hashed character 1-5-grams inside words: TF-IDF, then SVD.

    As many buckets as an int8 table of `width` columns and one float32 weight a row take of
    `budget` bytes. Fitted on the first `limit` texts.
    """
    buckets = budget // (width + 4)
    hashing = HashingVectorizer(
        analyzer="char_wb", ngram_range=(1, 5), n_features=buckets, alternate_sign=False, norm=None
    )
    counts = hashing.transform(list(islice(texts, limit)))
    weigh = TfidfTransformer(sublinear_tf=True).fit(counts)
    cut = TruncatedSVD(width, n_iter=3, random_state=0).fit(weigh.transform(counts))
    table = _rounded(np.ascontiguousarray(cut.components_.T, dtype=np.float32))

    def encode(texts: Sequence[str]) -> Vectors:
        vectors: Vectors = weigh.transform(hashing.transform(texts)) @ table
        return vectors.astype(np.float32)

    return encode


def _rounded(table: Vectors) -> Vectors:
    """Return what an int8 table with a scale for each row would hold."""
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / _LEVELS
    rounded: Vectors = (np.rint(table / scale) * scale).astype(np.float32)
    return rounded


def static_rows(
    pairs: Path, cache: VectorCache, tokenizer: Tokenizer, *, width: int, limit: int = 1_000_000
) -> Vectors:
    """Return a vector for each piece [V, width] whose mean over a text is nearest the teacher's.

    Ridge regression of the rotated teacher vectors of `pairs` (a pairs stage) on the shares of
    pieces in the student's texts: the best static student (Model2Vec's kind) in this sense.
    """
    rows = cache.rows_of(islice(read_lines(pairs / "teacher.txt"), limit))
    sources = np.load(pairs / "sources.npy")[: len(rows)]
    taught = rows >= 0
    for source in np.unique(sources[~taught]):  # what another teacher reads, and comes last
        if taught[sources == source].any():
            raise InputError(
                f"{cache.folder}: lacks vectors of {pairs}: run `rubert-lite train vectors`"
            )
    rows = rows[: int(taught.sum())]
    if not len(rows):
        raise InputError(f"{pairs}: no pairs")
    rotation = principal_rotation(
        cache.vectors(np.sort(rows)[:: max(1, len(rows) // 100_000)]), width
    )
    size = tokenizer.get_vocab_size()
    moment = np.zeros((size, size), dtype=np.float32)
    answer = np.zeros((size, width), dtype=np.float32)
    texts = islice(read_lines(pairs / "student.txt"), len(rows))
    start = 0
    total: Any = None
    while chunk := list(islice(texts, 16 * _CHUNK)):
        bags = piece_shares(tokenizer, chunk)
        targets = cache.vectors(rows[start : start + len(chunk)]).astype(np.float32) @ rotation
        product = (bags.T @ bags).tocsr()
        total = product if total is None else total + product
        answer += bags.T @ unit(targets)
        start += len(chunk)
    moment = np.asarray(total.todense(), dtype=np.float32)
    # A piece's share of a text of n pieces is 1/n: scaled so that the ridge counts texts.
    moment[np.diag_indices(size)] += _RIDGE * float(moment.diagonal().mean())
    found: Vectors = linalg.solve(moment, answer, assume_a="pos", overwrite_a=True).astype(
        np.float32
    )
    return found


def piece_shares(tokenizer: Tokenizer, texts: Sequence[str]) -> sparse.csr_matrix:
    """Return the shares of pieces in each text [texts, V], specials left out."""
    encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    lengths = np.asarray([len(e.ids) for e in encoded])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids: NDArray[np.int32] = np.fromiter((i for e in encoded for i in e.ids), dtype=np.int32)
    shares = np.repeat(1.0 / np.maximum(lengths, 1), lengths).astype(np.float32)
    shape = (len(encoded), tokenizer.get_vocab_size())
    matrix = sparse.csr_matrix((shares, ids, starts), shape=shape)
    matrix.sum_duplicates()
    return matrix


def static_encoder(rows: Vectors, tokenizer: Tokenizer) -> Encode:
    """Return the encoder that averages the rows of a text's pieces, in int8."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    table = _rounded(rows)

    def encode(texts: Sequence[str]) -> Vectors:
        vectors: Vectors = piece_shares(tokenizer, texts) @ table
        return vectors

    return encode
