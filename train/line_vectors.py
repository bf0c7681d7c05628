"""The stage that collects text pairs and the vectors of their teacher."""

from pathlib import Path

import numpy as np

from .config import SentenceConfig
from .corpus import expand
from .folders import Line, fingerprint_source
from .pairs import PairCleaning, PairSource, read_lines, write_pairs
from .stage import Stage, fingerprint_files, run_stage
from .vectors import VectorCache, hashes, open_encoder


def open_cache(config: SentenceConfig) -> VectorCache:
    """Open the cached vectors of the configured teacher."""
    teacher = fingerprint_source(config.teacher)
    name = f"{Path(config.teacher).name}-{config.revision or teacher[:16]}"
    return VectorCache(Path(config.cache) / name)


def vectors(line: Line) -> None:
    """Run the vectors stage, if the configuration has a sentence stage."""
    c = line.config.sentence
    if c is None:
        return
    kinds = [
        PairSource(**{**s.model_dump(), "files": tuple(expand(s.files, s.name))}) for s in c.sources
    ]
    held_out = expand(c.exclude, "sentence.exclude")
    cleaning = PairCleaning(max_chars=c.max_chars, passages=c.passages)
    inputs = {s.name: fingerprint_files(s.files) for s in kinds}
    keys = {"sources", "max_chars", "passages", "revision"}
    stage = Stage(
        line.folder("05-vectors"),
        c.model_dump(include=keys),
        {
            **inputs,
            "sentence.exclude": fingerprint_files(held_out),
            "teacher": fingerprint_source(c.teacher),
        },
    )

    def work(out: Path) -> None:
        reports = write_pairs(kinds, out, cleaning=cleaning, exclude=held_out)
        total = sum(r.kept + r.passages for r in reports)
        cache = open_cache(c)
        encode = open_encoder(c.teacher, revision=c.revision)
        cache.fill(read_lines(out / "teacher.txt"), encode, total=total)
        np.save(out / "rows.npy", cache.rows(hashes(read_lines(out / "teacher.txt"))))

    run_stage(stage, work, force=line.force)
