"""The stages before sentences are learnt: pairs of texts, the vectors of their teachers, pieces."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .corpus import expand
from .encoders import open_encoder, package_version
from .folders import Line, fingerprint_source, fingerprint_weights
from .items import Reading, write_items
from .pairs import PairCleaning, PairSource, read_lines, write_pairs
from .sentence_config import PairSourceConfig, SentenceConfig
from .stage import Stage, fields_of, fingerprint_files, fingerprint_stage, run_stage
from .targets import Beside, Own, Targets, ridge
from .vectors import Side, VectorCache, hashes, read_texts_of

_PLAIN = "texts of the corpus"  # the name of the source that the second teacher reads
_FITTED = "plain.npy"  # [second teacher's width, first teacher's width]
_CENTRES = "centres.npy"  # [joined width of those that read the student's side]
_KEYS, _OWN_KEYS = "keys.npy", "student_keys.npy"  # [pairs] uint64, hashes of the sides
_FITTED_PAIRS = 100_000  # that decide it, about
_NAME = 16  # characters in a cache's name that tell what filled it


def pair_sources(sources: Sequence[PairSourceConfig], *, share: float = 1.0) -> list[PairSource]:
    """Make the sources of a configuration, their patterns of files expanded."""
    return [
        PairSource(**{**s.model_dump(), "files": tuple(expand(s.files, s.name)), "share": share})
        for s in sources
    ]


def pairs(line: Line) -> None:
    """Run the pairs stage, if the configuration has a sentence stage."""
    c = line.config.sentence
    if c is None:
        return
    kinds = pair_sources(c.sources)
    inputs = {s.name: fingerprint_files(s.files) for s in kinds}
    if c.plain_teacher:
        corpus = line.folder("01-corpus")
        inputs["01-corpus"] = fingerprint_stage(corpus)
        files = tuple(map(str, sorted(corpus.glob("train-*.txt"))))
        kinds.append(PairSource(_PLAIN, files, "as those texts", share=c.plain_share))
    held_out = expand(c.exclude, "sentence.exclude")
    # Pairs that are held out stand in no passage either, so the passages depend on their share.
    shared = {"valid_share": c.valid_share} if c.passages else {}
    cleaning = PairCleaning(
        max_chars=c.max_chars, passages=c.passages, valid_share=shared.get("valid_share", 0.0)
    )
    plain = {"plain": c.plain_share} if c.plain_teacher else {}
    stage = Stage(
        line.folder("05-pairs"),
        c.model_dump(include={"sources", "max_chars", "passages"}) | plain | shared,
        {**inputs, "sentence.exclude": fingerprint_files(held_out)},
        defaults=shared,
    )

    def work(out: Path) -> None:
        write_pairs(kinds, out, cleaning=cleaning, exclude=held_out)

    run_stage(stage, work, force=line.force)


def vectors(line: Line) -> None:
    """Run the vectors stage: fill the caches of the teachers, and find every pair's vector."""
    c = line.config.sentence
    if c is None:
        return
    folder = line.folder("05-pairs")
    inputs = {
        "pairs": fingerprint_stage(folder),
        "teacher": fingerprint_source(c.teacher),
        "plain_teacher": fingerprint_source(c.plain_teacher),
    }
    for name in ("teacher_beside", "plain_beside", "student_beside"):
        if beside := getattr(c, name):
            inputs[name] = " ".join(map(fingerprint_source, beside))
    defaults = {"plain_fitted": False, "student_beside_centred": False}
    stage = Stage(
        line.folder("05-vectors"),
        c.model_dump(include={"revision", "cache", *defaults}),
        inputs,
        defaults=defaults,
    )

    def work(out: Path) -> None:
        sources = np.load(folder / "sources.npy")
        # The plain texts are the last source, if there are any.
        plain = sources == len(c.sources)
        first, *second = _teachers(c)
        first.read(folder, ~plain)
        if second:
            second[0].read(folder, plain)
            if c.plain_fitted:
                np.save(out / _FITTED, _fit(folder, ~plain, first, second[0]))
        np.save(out / _KEYS, hashes(read_lines(folder / "teacher.txt")))
        if c.student_beside:
            own = _own(c)
            own.read(folder, np.ones_like(plain), side="student")
            keys = hashes(read_lines(folder / "student.txt"))
            np.save(out / _OWN_KEYS, keys)
            if c.student_beside_centred:
                known = Beside(own.caches)
                np.save(out / _CENTRES, known.means(known.rows(keys)))
        np.save(out / "teachers.npy", plain.astype(np.uint8))
        _targets(c, out)  # refuses teachers of different widths here

    run_stage(stage, work, force=line.force)


@dataclass(frozen=True)
class _Teacher:
    """A sentence encoder, or several side by side, and the caches of their vectors."""

    encoders: tuple[str, ...]
    revision: str  # of the first, if it has a hub id
    caches: tuple[VectorCache, ...]

    def read(
        self,
        pairs: Path,
        chosen: NDArray[np.bool_],
        *,
        side: Side = "teacher",
    ) -> None:
        """Compute the vectors of a side of the chosen pairs that have none yet."""
        revision = self.revision
        for source, cache in zip(self.encoders, self.caches, strict=True):
            encode = open_encoder(source, revision=revision)
            cache.fill(read_texts_of(pairs, chosen, side), encode, total=int(chosen.sum()))
            revision = ""

    def joined(
        self,
        matrix: NDArray[np.float32] | None = None,
        centres: NDArray[np.float32] | None = None,
    ) -> VectorCache | Beside:
        """Return all that it has computed, side by side."""
        if len(self.caches) == 1 and matrix is None and centres is None:
            return self.caches[0]
        return Beside(self.caches, matrix, centres)


def _fit(
    pairs: Path, chosen: NDArray[np.bool_], first: _Teacher, second: _Teacher
) -> NDArray[np.float32]:
    """Return the map from what `second` says of the student's side to what `first` said."""
    sample = np.zeros_like(chosen)
    sample[np.flatnonzero(chosen)[:: max(1, int(chosen.sum()) // _FITTED_PAIRS)]] = True
    second.read(pairs, sample, side="student")

    def said(teacher: _Teacher, side: Side) -> NDArray[np.float16]:
        known = teacher.joined()
        return known.vectors(known.rows(hashes(read_texts_of(pairs, sample, side))))

    return ridge(said(second, "student"), said(first, "teacher"))


def _teachers(c: SentenceConfig) -> list[_Teacher]:
    """Name the teachers of pairs and of plain text and open the cached vectors of each."""
    both = ((c.teacher, *c.teacher_beside), c.revision), ((c.plain_teacher, *c.plain_beside), "")
    return [_teacher(c, encoders, revision) for encoders, revision in both if encoders[0]]


def _own(c: SentenceConfig) -> _Teacher:
    return _teacher(c, tuple(c.student_beside), "")


def _teacher(c: SentenceConfig, encoders: tuple[str, ...], revision: str) -> _Teacher:
    revisions = (revision, *("" for _ in encoders[1:]))
    return _Teacher(encoders, revision, tuple(map(partial(_cache, c), encoders, revisions)))


def _cache(c: SentenceConfig, encoder: str, revision: str) -> VectorCache:
    return VectorCache(Path(c.cache) / cache_name(encoder, revision))


def cache_name(encoder: str, revision: str = "") -> str:
    """Name the folder of an encoder's vectors by all that they depend on.

    Raises InputError for what can only be a folder, and is not there.
    """
    folder = Path(encoder)
    made = package_version(encoder) or fingerprint_source(encoder, revision)
    if (folder / "stage.json").is_file():  # which tells its settings, not what lies there
        made += f"|{fingerprint_weights(folder)}"
    # A name on a hub may be cut where its owner is whole: what follows stands in the folder's name.
    if len(made) > _NAME and not (made == encoder and encoder.rfind("/") < _NAME):
        made = sha256(made.encode()).hexdigest()
    return f"{folder.name}-{made[:_NAME].replace('/', '-')}"


def open_targets(line: Line) -> Targets:
    """Open what the vectors stage found."""
    c = line.config.sentence
    assert c is not None
    return _targets(c, line.folder("05-vectors"))


def _targets(c: SentenceConfig, folder: Path) -> Targets:
    first, *second = _teachers(c)
    matrix = np.load(folder / _FITTED) if c.plain_fitted else None
    caches = (first.joined(), *(teacher.joined(matrix) for teacher in second))
    teachers = np.load(folder / "teachers.npy")
    if not (folder / _KEYS).is_file():  # made before: it has rows of the cache as it was then
        return Targets(caches, np.load(folder / "rows.npy"), teachers)
    # Rows are found anew: other lines share the cache, and may have made it anew.
    keys = np.load(folder / _KEYS)
    rows = np.full(len(keys), -1, dtype=np.int64)
    for number, cache in enumerate(caches):
        rows[teachers == number] = cache.rows(keys[teachers == number])
    own = None
    if c.student_beside:
        centres = np.load(folder / _CENTRES) if c.student_beside_centred else None
        cache = _own(c).joined(centres=centres)
        own = Own(cache, cache.rows(np.load(folder / _OWN_KEYS)), c.student_beside_share)
    return Targets(caches, rows, teachers, own)


def items(line: Line) -> None:
    """Run the items stage: the texts of the pairs in the student's pieces."""
    c = line.config.sentence
    if c is None:
        return
    tokenizer = _tokenizer(line)
    reading = Reading(**fields_of(c.model_dump(), Reading))
    vocabulary = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
    stage = Stage(
        line.folder("05-items"),
        vars(reading) | {"pieces": len(vocabulary)},
        {
            "pairs": fingerprint_stage(line.folder("05-pairs")),
            "tokenizer": fingerprint_files([str(tokenizer)]),
        },
        defaults=vars(Reading()),
    )

    def work(out: Path) -> None:
        write_items(
            line.folder("05-pairs"),
            Tokenizer.from_file(str(tokenizer)),
            out,
            reading=reading,
            unjudged=len(c.sources),
        )
        shutil.copyfile(tokenizer, out / "tokenizer.json")

    run_stage(stage, work, force=line.force)


def _tokenizer(line: Line) -> Path:
    """Return the tokenizer of the student: that of what it goes on from, or of the line."""
    c = line.config.sentence
    assert c is not None
    given = Path(c.source) / "tokenizer.json"
    own = line.folder("02-vocabulary") / "tokenizer.json"
    return given if c.source and not c.new_pieces and given.is_file() else own
