"""The encoders that an evaluation compares: packages, teachers and baselines."""

import glob
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal

from pydantic import Field
from tokenizers import Tokenizer

import rubert_lite
from rubert_lite.package import ModelPackage

from .baselines import hashed_tfidf, static_encoder, static_rows
from .corpus import expand
from .encoders import WHEELS, open_encoder, package_version
from .folders import fingerprint_source
from .hub import looks_local
from .pairs import read_lines
from .section import Section
from .stage import fingerprint_files
from .tasks import Encode
from .tfidf import TERMS
from .vectors import VectorCache


class SystemConfig(Section):
    """An encoder to judge."""

    name: str
    kind: Literal["package", "encoder", "hashed-tfidf", "static", "words", "characters"]
    path: str = ""  # package; directory or hub id of an encoder; tokenizer.json of `static`
    variant: str = ""  # of a package
    truncate_dim: int = Field(0, ge=0)
    pairs: str = ""  # pairs stage, for `static`
    cache: str = ""  # cached teacher vectors, for `static`
    texts: list[str] = []  # text files, for `hashed-tfidf`
    width: int = Field(256, ge=1)
    budget: int = Field(6_800_000, ge=10_000)  # bytes, for `hashed-tfidf`

    @property
    def missing(self) -> str:
        """The first of its files, folders and Python packages that is not there.

        Names on a hub count as there.
        """
        encoder = self.path if self.kind == "encoder" else ""
        paths = [self.pairs, self.cache, "" if encoder else self.path]
        absent = [p for p in paths if p and not Path(p).exists()]
        absent += [t for t in self.texts if not (Path(t).is_file() or glob.glob(t))]
        absent.append(_absent(encoder))
        return next(filter(None, absent), "")


def _absent(encoder: str) -> str:
    """Name what an encoder lacks here: its Python package, or its folder."""
    if encoder in WHEELS:
        return "" if package_version(encoder) else f"package {encoder}"
    return encoder if looks_local(encoder) and not Path(encoder).exists() else ""


def _source(encoder: str) -> list[str]:
    return [fingerprint_source(encoder), *filter(None, [package_version(encoder)])]


@dataclass(frozen=True)
class System:
    """A system, opened when it is first needed."""

    config: SystemConfig

    @cached_property
    def fingerprint(self) -> str:
        """Identify what the vectors depend on, as it was at first: files and settings."""
        c = self.config
        parts = [c.model_dump_json(exclude={"name", "path"}, exclude_defaults=True)]
        if c.kind == "package":  # its card, for one, does not matter
            files = self._package.manifest.files
            parts += [files[name].sha256 for name in self._encoding_files]
        elif c.path:
            single = Path(c.path).is_file()
            parts += [fingerprint_files([c.path])] if single else _source(c.path)
        parts += [fingerprint_files(expand(c.texts, c.name))] if c.texts else []
        return "|".join([*parts, *chain.from_iterable(_source(p) for p in (c.pairs, c.cache) if p)])

    @cached_property
    def encode(self) -> Encode:
        """From texts to vectors."""
        c = self.config
        if c.kind == "package":
            model = rubert_lite.load(c.path, variant=c.variant or None)
            width = c.truncate_dim or None
            return lambda texts: model.encode(texts, truncate_dim=width)
        if c.kind == "hashed-tfidf":
            texts = chain.from_iterable(read_lines(Path(p)) for p in expand(c.texts, c.name))
            return hashed_tfidf(texts, budget=c.budget, width=c.width)
        if c.kind in TERMS:
            raise AssertionError(f"{c.kind} have no vectors")
        if c.kind == "static":
            tokenizer = Tokenizer.from_file(c.path)
            tokenizer.enable_truncation(256)
            rows = static_rows(Path(c.pairs), VectorCache(Path(c.cache)), tokenizer, width=c.width)
            return static_encoder(rows, tokenizer)
        return open_encoder(c.path)

    def properties(self) -> dict[str, float]:
        """Megabytes (10^6) on disk of the files that encode, and the width of the vectors."""
        c = self.config
        if c.kind == "hashed-tfidf":
            return {"mb": c.budget / 1e6, "width": c.width}
        if c.kind == "static":  # an int8 table with a scale for each row
            rows = Tokenizer.from_file(c.path).get_vocab_size()
            return {"mb": rows * (c.width + 4) / 1e6, "width": c.width}
        if c.kind != "package":
            return {}
        manifest = self._package.manifest
        size = sum(manifest.files[name].size for name in self._encoding_files)
        return {"mb": size / 1e6, "width": c.truncate_dim or manifest.hidden_size}

    @cached_property
    def _package(self) -> ModelPackage:
        return ModelPackage.open(Path(self.config.path))

    @property
    def _encoding_files(self) -> tuple[str, str]:
        manifest = self._package.manifest
        chosen = self.config.variant or manifest.default_variant
        return manifest.variants[chosen], "tokenizer.json"
