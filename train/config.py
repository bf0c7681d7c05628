"""The configuration of a training line: TOML, checked as a whole before anything runs.

Units stand in the names. Configuration ends in `__main__` and `line`: below, plain arguments.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rubert_lite.errors import ConfigError

from .contradictions import contradictions
from .precision import Precision
from .section import Section, load_section
from .sentence_config import Expression, SentenceConfig


class SourceConfig(Section):
    """One set of text files."""

    name: str  # for reports and the model card
    files: list[str]  # paths or patterns, relative to the working directory; `-` is standard input
    license: str  # of the texts, for the model card
    field: str = "text"  # key (jsonl) or column (parquet) of the text


class CorpusConfig(Section):
    """Which texts, and what is kept of them."""

    sources: list[SourceConfig] = Field(min_length=1)
    exclude: list[str] = []  # txt or jsonl files (all strings of a record) of texts to leave out
    # Off: of texts above max_chars only parts are looked up in `exclude`, as before this setting
    exclude_whole: bool = True
    directory: str = (
        ""  # where 01-corpus lies, to share it between configurations; default: the run
    )
    min_chars: int = Field(3, ge=1)
    max_chars: int = Field(400, ge=20)  # longer texts are cut at a sentence or word
    valid_share: float = Field(0.005, gt=0, lt=1)
    max_broken_share: float = Field(0.01, ge=0, le=1)
    buckets: int = Field(64, ge=1, le=512)  # files a pass; more for corpora past 10 GB


class TeacherConfig(Section):
    """Who teaches: exactly one of `path` and `config`, or neither for pretraining."""

    path: str = ""  # directory or hub id, e.g. DeepPavlov/rubert-base-cased-conversational
    revision: str = ""  # of a hub id
    config: str = ""  # another training line that makes the teacher, run first if needed


class VocabularyConfig(Section):
    """The student's vocabulary."""

    # join: the pieces of `tokenizer` and those trained on the pairs' other side, pruned together;
    # extend: all pieces of `tokenizer`, with their ids, and the most frequent of the others
    method: Literal["full", "prune", "join", "extend", "train", "map"] = "prune"
    size: int = Field(16384, ge=16)  # pieces; ignored by `full`
    tokenizer: str = ""  # folder with tokenizer.json or vocab.txt; default: the teacher's
    min_char_count: int = Field(2, ge=1)  # rarer characters leave the alphabet
    lowercase: bool = False  # of `train` alone: case is dropped, pieces go further
    # Share of the pairs of [sentence] whose teacher's side is text, too: pieces of that language
    pairs: float = Field(0.0, ge=0, le=1)
    new_matching: Expression = ""  # of `extend`: must be found in a piece that is added
    report_sizes: list[int] = []  # further sizes in the coverage report


class ShardsConfig(Section):
    """Tokenised examples on disk."""

    # Where 02-vocabulary and 03-shards lie, to share them between configurations; default: the run
    directory: str = ""
    max_length: int = Field(
        128, ge=8, le=4096
    )  # pieces of a text on either side, specials included
    processes: int = Field(2, ge=1)
    files: int = Field(0, ge=0)  # of 01-corpus, each a random part of it, at most; 0: all


class StudentConfig(Section):
    """The student's body and its start."""

    layers: int = Field(3, ge=0)
    hidden_size: int = Field(256, ge=1)
    heads: int = Field(4, ge=1)
    ffn_size: int = Field(768, ge=1)
    max_length: int = Field(512, ge=8)  # positions
    architecture: Literal["distilbert", "bert"] = "distilbert"
    dropout: float = Field(0.1, ge=0, lt=1)
    initializer_range: float = Field(0.02, gt=0)  # standard deviation of random weights
    # From the teacher (see initialise), or from which pieces stand near each other in the corpus
    initial_rows: Literal["random", "mean", "expected", "fvt", "cooccurrence"] = "fvt"
    # Evenly spaced ones, means of blocks, or those without which masked words are told worst
    initial_layers: Literal["random", "select", "average", "measured"] = "select"
    cut: Literal["topleft", "pca", "measured"] = "topleft"


class DistilConfig(Section):
    """The weights of the losses, the alignment and the schedule: see Recipe and Schedule."""

    alignment: Literal["none", "plain", "match", "match-string", "reduce", "reduce-map"] = "reduce"
    kl: float = Field(2.0, ge=0)
    mlm: float = Field(0.5, ge=0)
    hidden: float = Field(0.0, ge=0)
    contrastive: float = Field(0.0, ge=0)
    span: float = Field(0.0, ge=0)
    span_temperature: float = Field(100.0, gt=0)
    hidden_loss: Literal["mse", "cosine"] = "cosine"
    hidden_at: Literal["pieces", "words"] = "pieces"
    layer_strategy: Literal["all", "blocks", "last", "skip"] = "blocks"
    map_mode: Literal["sum", "logsumexp"] = "logsumexp"
    combine: Literal["sum", "mean"] = "sum"
    temperature: float = Field(2.0, gt=0)
    tail: bool = False
    mask_teacher: bool = False
    compare: Literal["all", "masked"] = "all"
    positions: int = Field(1024, ge=1)
    mask_share: float = Field(0.15, gt=0, lt=1)
    mask_exponent: float = 0.0
    negatives: int = 64
    steps: int = Field(1000, ge=0)  # 0: the student as it starts
    max_minutes: float = Field(0.0, ge=0)  # ends by the clock, too; 0: by steps alone
    tokens_per_batch: int = Field(4096, ge=16)
    accumulation: int = Field(1, ge=1)
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(5e-4, gt=0)
    warmup_share: float = Field(0.05, ge=0, lt=1)
    decay: Literal["constant", "linear", "cosine"] = "linear"
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(5.0, gt=0)
    precision: Precision = "no"  # bf16 where the device has units for it, float32 elsewhere
    seed: int = Field(42, ge=0, lt=1 << 63)
    checkpoint_steps: int = Field(500, ge=1)
    validate_steps: int = Field(500, ge=1)
    log_steps: int = Field(10, ge=1)


class FinetuneConfig(Section):
    """A task: a linear head on the pooled vector, or on each piece. See Tuning."""

    name: str  # the stage is 06-<name>
    task: Literal["classification", "token-classification", "question-answering"] = "classification"
    # jsonl, may be compressed; of question-answering JSON in SQuAD's format
    train: str
    dev: str
    text: str = "text"  # key of the text (classification)
    pair: str = ""  # key of the second text of a pair; empty: single texts
    label: str = "label"  # key of the label
    license: str  # of the labelled texts, for the model card
    source: str = ""  # checkpoint that gets the task; default: the student of this line
    limit: int = Field(0, ge=0)  # records of `train` at most, drawn from all of it; 0: all
    labels: dict[str, str] = {}  # label in the file -> label of the model; empty: as they are
    balance: bool = False  # every class weighs the same, however rare
    soft: str = ""  # a tuned teacher (its 06-folder), whose probabilities replace the labels
    # Texts for `soft` alone: a text a line, jsonl or parquet with the key `text` (pairs: jsonl)
    unlabelled: str = ""
    unlabelled_license: str = ""  # of these texts, for the model card
    freeze_encoder: bool = True  # train the head alone: vectors stay what they were
    epochs: int = Field(5, ge=1)
    patience: int = Field(0, ge=0)  # epochs without a better dev score; 0: no early stop
    learning_rate: float = Field(1e-3, gt=0)
    warmup_share: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    batch_size: int = Field(64, ge=1)
    max_length: int = Field(512, ge=8)  # pieces
    precision: Precision = "no"  # bf16 where the device has units for it, float32 elsewhere
    metric: str = ""  # dev score that decides; default: macro_f1, of entities and answers f1
    seed: int = 42


class LineConfig(Section):
    """A whole training line."""

    run: str  # folder of the run; its stages are 01-corpus, 02-vocabulary, ...
    license: str = "Apache-2.0"  # of the weights
    corpus: CorpusConfig
    teacher: TeacherConfig = TeacherConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()
    shards: ShardsConfig = ShardsConfig()
    student: StudentConfig = StudentConfig()
    distil: DistilConfig = DistilConfig()
    sentence: SentenceConfig | None = None
    finetune: FinetuneConfig | None = None


def load_config(
    path: Path, overrides: Sequence[str] = (), *, changes: Mapping[str, Any] | None = None
) -> LineConfig:
    """Read the TOML file of a training line; see `load_section`."""
    config = load_section(LineConfig, path, overrides, changes=changes)
    problems = contradictions(config)
    if problems:
        raise ConfigError(problems)
    return config
