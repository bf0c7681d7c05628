"""A configured run: where its stages lie, and what their inputs are identified by."""

from dataclasses import dataclass
from pathlib import Path

from rubert_lite.package import MANIFEST

from .config import LineConfig, load_config
from .hub import refuse_missing
from .stage import fingerprint_files, fingerprint_stage

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Line:
    """A configured run and the folders of its stages."""

    config: LineConfig
    force: bool = False

    def folder(self, name: str) -> Path:
        """Return the folder of a stage."""
        if name == "01-corpus" and self.config.corpus.directory:
            return Path(self.config.corpus.directory)
        if name in ("02-vocabulary", "03-shards") and self.config.shards.directory:
            return Path(self.config.shards.directory) / name
        sentence = self.config.sentence
        if name in ("05-pairs", "05-vectors") and sentence and sentence.directory:
            return Path(sentence.directory) / name
        if name == "05-items" and sentence and sentence.items:
            return Path(sentence.items) / name
        return Path(self.config.run) / name

    @property
    def teacher(self) -> str:
        """Directory or hub id of the teacher; empty for pretraining."""
        if self.config.teacher.config:
            return str(self.teacher_line().folder("04-student"))
        return self.config.teacher.path

    def teacher_line(self) -> "Line":
        """Return the line that makes the teacher."""
        return Line(load_config(Path(self.config.teacher.config)), self.force)


def fingerprint_weights(model: Path) -> str:
    """Identify a model by all bytes of its weights; UNKNOWN where there are none."""
    weights = model / "model.safetensors"
    return fingerprint_files([str(weights)], whole=True) if weights.is_file() else UNKNOWN


def fingerprint_source(source: str, revision: str = "") -> str:
    """Identify a model: a folder by its files, a hub id by its name and revision.

    Raises InputError for what can only be a folder, and is not there.
    """
    folder = Path(source)
    if not source or not folder.is_dir():
        refuse_missing(source)
        return f"{source}@{revision}" if source and revision else source
    if (folder / "stage.json").is_file():
        return fingerprint_stage(folder)
    files = [str(p) for p in sorted(folder.iterdir()) if p.is_file()]
    if (folder / MANIFEST).is_file():  # of a package: it has the hashes of all others
        return fingerprint_files(files)
    found = fingerprint_files(files, whole=True)
    # Such as the pooling and dense layers of sentence-transformers.
    for inner in sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != "."):
        below = [str(p) for p in sorted(inner.rglob("*")) if p.is_file()]
        if below:
            found += f"|{inner.name}:{fingerprint_files(below, whole=True)}"
    return found
