"""The configuration of a training line: TOML, checked as a whole before anything runs.

Units stand in the names. Configuration ends in `__main__` and `line`: below, plain arguments.
"""

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rubert_lite.errors import ConfigError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SourceConfig(_Section):
    """One set of text files."""

    name: str  # for reports and the model card
    files: list[str]  # paths or patterns, relative to the working directory; `-` is standard input
    license: str  # of the texts, for the model card
    field: str = "text"  # key (jsonl) or column (parquet) of the text


class CorpusConfig(_Section):
    """Which texts, and what is kept of them."""

    sources: list[SourceConfig] = Field(min_length=1)
    exclude: list[str] = []  # txt or jsonl files (all strings of a record) of texts to leave out
    directory: str = (
        ""  # where 01-corpus lies, to share it between configurations; default: the run
    )
    min_chars: int = Field(3, ge=1)
    max_chars: int = Field(400, ge=20)  # longer texts are cut at a sentence or word
    valid_share: float = Field(0.005, gt=0, lt=1)
    max_broken_share: float = Field(0.01, ge=0, le=1)
    buckets: int = Field(64, ge=1, le=512)  # files a pass; more for corpora past 10 GB


class TeacherConfig(_Section):
    """Who teaches: exactly one of `path` and `config`, or neither for pretraining."""

    path: str = ""  # directory or hub id, e.g. DeepPavlov/rubert-base-cased-conversational
    revision: str = ""  # of a hub id
    config: str = ""  # another training line that makes the teacher, run first if needed


class VocabularyConfig(_Section):
    """The student's vocabulary."""

    method: Literal["full", "prune", "train", "map"] = "prune"
    size: int = Field(16384, ge=16)  # pieces; ignored by `full`
    tokenizer: str = ""  # folder with tokenizer.json or vocab.txt; default: the teacher's
    min_char_count: int = Field(2, ge=1)  # rarer characters leave the alphabet
    lowercase: bool = False  # of `train` alone: case is dropped, pieces go further
    report_sizes: list[int] = []  # further sizes in the coverage report


class ShardsConfig(_Section):
    """Tokenised examples on disk."""

    max_length: int = Field(
        128, ge=8, le=4096
    )  # pieces of a text on either side, specials included
    processes: int = Field(2, ge=1)


class StudentConfig(_Section):
    """The student's body and its start."""

    layers: int = 3
    hidden_size: int = 256
    heads: int = 4
    ffn_size: int = 768
    max_length: int = 512  # positions
    architecture: Literal["distilbert", "bert"] = "distilbert"
    dropout: float = Field(0.1, ge=0, lt=1)
    initializer_range: float = Field(0.02, gt=0)  # standard deviation of random weights
    # From the teacher (mean, fvt), or from which pieces stand near each other in the corpus.
    initial_rows: Literal["random", "mean", "fvt", "cooccurrence"] = "fvt"
    initial_layers: Literal["random", "select", "average"] = "select"
    cut: Literal["topleft", "pca"] = "pca"


class DistilConfig(_Section):
    """The weights of the losses, the alignment and the schedule: see Recipe and Schedule."""

    alignment: Literal["none", "plain", "match", "match-string", "reduce", "reduce-map"] = "reduce"
    kl: float = Field(2.0, ge=0)
    mlm: float = Field(0.5, ge=0)
    hidden: float = Field(0.0, ge=0)
    contrastive: float = Field(0.0, ge=0)
    hidden_loss: Literal["mse", "cosine"] = "cosine"
    layer_strategy: Literal["all", "blocks", "last", "skip"] = "blocks"
    map_mode: Literal["sum", "logsumexp"] = "logsumexp"
    combine: Literal["sum", "mean"] = "sum"
    temperature: float = Field(2.0, gt=0)
    tail: bool = False
    mask_teacher: bool = False
    positions: int = Field(1024, ge=1)
    mask_share: float = Field(0.15, gt=0, lt=1)
    mask_exponent: float = 0.0
    negatives: int = 64
    steps: int = Field(1000, ge=1)
    tokens_per_batch: int = Field(4096, ge=16)
    accumulation: int = Field(1, ge=1)
    learning_rate: float = Field(5e-4, gt=0)
    warmup_share: float = Field(0.05, ge=0, lt=1)
    decay: Literal["constant", "linear", "cosine"] = "linear"
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(5.0, gt=0)
    precision: Literal["no", "bf16"] = "no"
    seed: int = 42
    checkpoint_steps: int = Field(500, ge=1)
    validate_steps: int = Field(500, ge=1)
    log_steps: int = Field(10, ge=1)


class FinetuneConfig(_Section):
    """A linear task head on the pooled vector."""

    name: str  # the stage is 06-<name>
    train: str  # jsonl file, may be compressed
    dev: str
    text: str = "text"  # key of the text
    pair: str = ""  # key of the second text of a pair; empty: single texts
    label: str = "label"  # key of the label
    license: str  # of the labelled texts, for the model card
    labels: dict[str, str] = {}  # label in the file -> label of the model; empty: as they are
    freeze_encoder: bool = True  # train the head alone: vectors stay what they were
    epochs: int = Field(5, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    batch_size: int = Field(64, ge=1)
    seed: int = 42


class LineConfig(_Section):
    """A whole training line."""

    run: str  # folder of the run; its stages are 01-corpus, 02-vocabulary, ...
    license: str = "Apache-2.0"  # of the weights
    corpus: CorpusConfig
    teacher: TeacherConfig = TeacherConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()
    shards: ShardsConfig = ShardsConfig()
    student: StudentConfig = StudentConfig()
    distil: DistilConfig = DistilConfig()
    finetune: FinetuneConfig | None = None


def load_config(path: Path, overrides: Sequence[str] = ()) -> LineConfig:
    """Read a TOML file, apply `section.key=value` overrides (TOML values), and check everything.

    Raises ConfigError with all problems; an unknown key comes with the nearest known one.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file"]) from None
    except IsADirectoryError:
        raise ConfigError([f"{path}: is a folder, expected a TOML file"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: not TOML: {error}"]) from None
    for override in overrides:
        _override(data, override)
    try:
        config = LineConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError([_explain(e) for e in error.errors()]) from None
    problems = _contradictions(config)
    if problems:
        raise ConfigError(problems)
    return config


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError([f"--set {override}: expected section.key=value"])
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value  # a bare word is a string
    *sections, last = key.strip().split(".")
    place = data
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise ConfigError([f"--set {override}: {section} is not a section"])
    place[last] = parsed


def _explain(error: Any) -> str:
    place = [str(p) for p in error["loc"]]
    name = ".".join(place)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(place[-1], _known_keys(place[:-1]), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{name}: unknown key{hint}"
    if error["type"] == "missing":
        return f"{name}: missing"
    return f"{name} = {error['input']!r}: {error['msg'].lower()}"


def _known_keys(place: Sequence[str]) -> list[str]:
    model: Any = LineConfig
    for part in place:
        if part.isdigit():
            continue
        field = model.model_fields[part]
        choices = (field.annotation, *getattr(field.annotation, "__args__", ()))
        model = next(c for c in choices if isinstance(c, type) and issubclass(c, BaseModel))
    return list(model.model_fields)


def _contradictions(config: LineConfig) -> list[str]:
    problems = []
    teacher, distil = config.teacher, config.distil
    if teacher.path and teacher.config:
        problems.append("teacher: both path and config are given, expected one")
    has_teacher = bool(teacher.path or teacher.config)
    if not has_teacher and distil.alignment != "none":
        problems.append(
            f"distil.alignment = {distil.alignment!r} needs a teacher: give teacher.path or"
            " teacher.config, or set alignment = 'none' to pretrain"
        )
    if config.vocabulary.lowercase and config.vocabulary.method != "train":
        problems.append(
            "vocabulary.lowercase needs vocabulary.method = 'train': the other methods keep pieces"
            " with their case"
        )
    if not has_teacher and config.vocabulary.method == "map":
        problems.append("vocabulary.method = 'map' needs a teacher (its embeddings)")
    if config.student.hidden_size % max(config.student.heads, 1):
        problems.append(
            f"student.hidden_size = {config.student.hidden_size} is not a multiple of"
            f" student.heads = {config.student.heads}"
        )
    if config.shards.max_length > config.student.max_length:
        problems.append(
            f"shards.max_length = {config.shards.max_length} is above"
            f" student.max_length = {config.student.max_length}"
        )
    return problems
