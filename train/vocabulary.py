"""Choose the student's vocabulary: prune the teacher's, or that joined with pieces of another
language; train a smaller one, or map dropped pieces.

All give a tokenizer.json whose ids are the student's rows, so nothing behind this stage knows
the method. The student keeps the teacher's normaliser and pre-tokenizer: both sides see the same
words.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.trainers import WordPieceTrainer
from tqdm import tqdm

from rubert_lite.errors import InputError
from rubert_lite.wordpiece import (
    SPECIAL_PIECES,
    bert_tokenizer_spec,
    map_tokenizer,
    pieces_by_id,
    prune_tokenizer,
)

from .alignment import Ints
from .shards import MATCHED, align_texts
from .tokenizer import Spec, open_tokenizer

_CHUNK = 4096


def chunks(texts: Iterable[str], size: int = _CHUNK) -> Iterator[list[str]]:
    """Group a stream of texts into lists of `size`."""
    group: list[str] = []
    for text in texts:
        group.append(text)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def corpus_texts(corpus: Path, split: str = "train") -> Iterator[str]:
    """Stream the texts of a corpus stage."""
    files = sorted(corpus.glob(f"{split}*.txt"))
    if not files:
        raise InputError(f"{corpus}: no {split} files: run `rubert-lite train corpus` first")
    for path in tqdm(files, desc=f"read {split}", unit="file", disable=None):
        with path.open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                yield line.rstrip("\n")


def count_pieces(spec: Spec, texts: Iterable[str]) -> tuple[Ints, Counter[str]]:
    """Count the pieces of a tokenizer over texts, and the characters of the texts."""
    tokenizer = open_tokenizer(spec)
    counts = np.zeros(max(spec["model"]["vocab"].values()) + 1, dtype=np.int64)
    chars: Counter[str] = Counter()
    for group in chunks(texts):
        encoded = tokenizer.encode_batch_fast(group, add_special_tokens=False)
        ids = np.concatenate([np.array(e.ids, dtype=np.int64) for e in encoded])
        counts += np.bincount(ids, minlength=len(counts))
        chars.update("".join(group))
    return counts, chars


def choose_kept(spec: Spec, counts: Ints, size: int, *, min_char_count: int = 2) -> list[int]:
    """Choose `size` ids: specials, the alphabet of the corpus, then the most frequent pieces.

    The alphabet is every single character that stands in the vocabulary bare and with `##` and was
    seen at least `min_char_count` times in either form; keeping both forms means that its words
    never become [UNK]. Kept ids rise, so the student's order is the teacher's. Raises InputError
    when `size` is below the alphabet or above the vocabulary.
    """
    pieces = pieces_by_id(spec)
    if size > len(pieces):
        raise InputError(
            f"vocabulary size {size}: above the teacher's {len(pieces)} pieces: choose less"
        )
    index = {p: i for i, p in enumerate(pieces)}
    must = {index[p] for p in SPECIAL_PIECES}
    for piece, bare in index.items():
        tail = index.get("##" + piece)
        seen = counts[bare] + (counts[tail] if tail is not None else 0)
        if len(piece) == 1 and tail is not None and seen >= min_char_count:
            must |= {bare, tail}
    if size < len(must):
        raise InputError(
            f"vocabulary size {size}: below the {len(must)} pieces of specials and alphabet"
        )
    order = np.argsort(-counts, kind="stable")
    unused = {i for i, p in enumerate(pieces) if p.startswith("[unused")}
    rest = [int(i) for i in order if int(i) not in must and int(i) not in unused]
    return sorted([*must, *rest[: size - len(must)]])


def prune(
    spec: Spec, counts: Ints, size: int, *, min_char_count: int = 2
) -> tuple[Spec, list[int]]:
    """Prune to the `size` best pieces; return the tokenizer and the teacher id of each piece."""
    kept = choose_kept(spec, counts, size, min_char_count=min_char_count)
    return prune_tokenizer(spec, kept), kept


def join(spec: Spec, more: Spec) -> Spec:
    """Return the tokenizer `spec` with the pieces of `more` that it lacks behind its own."""
    known = spec["model"]["vocab"]
    new = [piece for piece in pieces_by_id(more) if piece not in known]
    vocab = dict(known) | {piece: id_ for id_, piece in enumerate(new, len(pieces_by_id(spec)))}
    return dict(spec) | {"model": dict(spec["model"]) | {"vocab": vocab}}


def extend(spec: Spec, whole: Spec, counts: Ints, size: int, *, matching: str = "") -> Spec:
    """Return the tokenizer `spec` of `size` pieces with the most frequent others of `whole`.

    `join` gave `whole`; `counts` [whole] are those of its pieces. Former pieces keep their ids, and
    a text in which no new one stands its pieces. Raises InputError when `size` is not above that of
    `spec`, or too few pieces are new and match the pattern.
    """
    pieces, known = pieces_by_id(whole), len(pieces_by_id(spec))
    if size <= known:
        raise InputError(
            f"vocabulary size {size}: the tokenizer has {known} pieces, which method = 'extend'"
            " keeps: choose more"
        )
    order = known + np.argsort(-counts[known:], kind="stable")
    new = [int(i) for i in order if counts[i] and re.search(matching, pieces[i])]
    if len(new) < size - known:
        raise InputError(
            f"vocabulary size {size}: {known} pieces are there, of the pairs' other side {len(new)}"
            " are new and match: choose less, or give more pairs"
        )
    return prune_tokenizer(whole, [*range(known), *sorted(new[: size - known])])


def lowercased(spec: Spec) -> Spec:
    """Return the same tokenizer with a normaliser that drops case; accents, й and ё stay."""
    lower = bert_tokenizer_spec(SPECIAL_PIECES, lowercase=True)
    return dict(spec) | {"normalizer": lower["normalizer"]}


def train_wordpiece(
    like: Spec,
    texts: Iterable[str],
    chars: Mapping[str, int],
    size: int,
    *,
    min_char_count: int = 2,
) -> Spec:
    """Train a WordPiece of exactly `size` pieces with the normaliser and pre-tokenizer of `like`.

    Every character of the alphabet enters bare and with `##` (arXiv 2205.02340, the authors'
    train_reduced_tok); the most frequent trained pieces fill the rest.
    """
    template = open_tokenizer(like)
    alphabet = _alphabet(template, chars, min_char_count)
    fixed = [*SPECIAL_PIECES, *alphabet, *("##" + c for c in alphabet)]
    if size < len(fixed):
        raise InputError(
            f"vocabulary size {size}: below the {len(fixed)} pieces of specials and alphabet"
        )
    learner = Tokenizer(WordPiece(unk_token="[UNK]"))
    learner.normalizer, learner.pre_tokenizer = template.normalizer, template.pre_tokenizer
    trainer = WordPieceTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_PIECES),
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learned = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    seen = set(fixed)
    merged = [p for p, _ in learned if p not in seen]
    pieces = [*fixed, *merged[: size - len(fixed)]]
    lowercase = bool(template.normalizer and template.normalizer.normalize_str("А") == "а")
    spec = bert_tokenizer_spec(pieces, lowercase=lowercase)
    return dict(spec) | {k: like[k] for k in ("normalizer", "pre_tokenizer")}


def _alphabet(tokenizer: Tokenizer, chars: Mapping[str, int], min_count: int) -> list[str]:
    """List the characters that are left after normalising, the frequent first."""
    counts: Counter[str] = Counter()
    for char, count in chars.items():
        normal = tokenizer.normalizer.normalize_str(char) if tokenizer.normalizer else char
        for part in normal.split():
            counts.update(dict.fromkeys(part, count))
    return [c for c, n in sorted(counts.items(), key=lambda i: (-i[1], i[0])) if n >= min_count]


def map_dropped(
    spec: Spec,
    counts: Ints,
    size: int,
    embeddings: NDArray[np.float32],
    *,
    min_char_count: int = 2,
) -> tuple[Spec, list[int]]:
    """Keep `size` pieces and let every other one use the row of its nearest kept piece.

    Nearest: largest dot product of the teacher's word embeddings [pieces, hidden] (GLMD, arXiv
    2306.06625, map method "decoder"), no special one. The segmentation stays the teacher's. Returns
    the tokenizer and the kept ids.
    """
    kept = choose_kept(spec, counts, size, min_char_count=min_char_count)
    pieces = pieces_by_id(spec)
    if len(embeddings) < len(pieces):
        raise InputError(
            f"vocabulary.method = 'map': the teacher has {len(embeddings)} rows, its tokenizer"
            f" {len(pieces)} pieces: do they belong together?"
        )
    embeddings = embeddings[: len(pieces)]  # rows may be padded to a round number
    new_ids = np.zeros(len(pieces), dtype=np.int64)
    rows = embeddings[kept]
    # No dropped piece means [PAD], whose row of zeros would beat all negative products.
    special = [new for new, old in enumerate(kept) if pieces[old] in SPECIAL_PIECES]
    for start in range(0, len(embeddings), 4096):
        products = embeddings[start : start + 4096] @ rows.T
        products[:, special] = -np.inf
        new_ids[start : start + 4096] = np.argmax(products, axis=1)
    new_ids[kept] = np.arange(len(kept))
    return map_tokenizer(spec, new_ids.tolist()), kept


@dataclass(frozen=True)
class Coverage:
    """How well a student vocabulary covers text, against the teacher's on the same texts."""

    size: int
    pieces_per_word: float
    unknown_share: float  # of the student's pieces
    chars_per_piece: float
    pieces_per_1000_chars: float
    matched_share: float  # of the teacher's positions that have a student piece with the same span


def measure_coverage(teacher: Spec, student: Spec, texts: Sequence[str]) -> Coverage:
    """Measure a student tokenizer on texts (specials not counted in the shares of pieces)."""
    sides = open_tokenizer(teacher), open_tokenizer(student)
    unknown_id = student["model"]["vocab"]["[UNK]"]
    pieces = unknown = chars = words = matched = positions = 0
    for group in chunks(texts):
        teacher_side, student_side, _ = align_texts(group, *sides, max_length=1 << 30)
        pieces += len(student_side.ids) - 2 * len(group)
        unknown += int((student_side.ids == unknown_id).sum())
        chars += sum(map(len, group))
        words += sum(len(t.split()) for t in group)
        matched += int((teacher_side.flags & MATCHED).sum()) - 2 * len(group)
        positions += len(teacher_side.ids) - 2 * len(group)
    return Coverage(
        size=len(set(student["model"]["vocab"].values())),
        pieces_per_word=pieces / max(words, 1),
        unknown_share=unknown / max(pieces, 1),
        chars_per_piece=chars / max(pieces, 1),
        pieces_per_1000_chars=1000 * pieces / max(chars, 1),
        matched_share=matched / max(positions, 1),
    )


def write_vocabulary(
    out: Path, spec: Spec, *, method: str, kept: Sequence[int], coverage: Sequence[Coverage]
) -> None:
    """Write tokenizer.json, vocabulary.json and coverage.json into `out`.

    The tokenizer is written from our own JSON: the library's writer would drop pieces that share an
    id.
    """
    vocabulary = {"method": method, "teacher_ids": list(kept)}
    for name, data in (
        ("tokenizer.json", spec),
        ("vocabulary.json", vocabulary),
        ("coverage.json", [asdict(c) for c in coverage]),
    ):
        text = json.dumps(data, ensure_ascii=False, indent=None if name == "vocabulary.json" else 1)
        (out / name).write_text(text + "\n", encoding="utf-8")
