"""The configuration of the sentence stages: pairs, their teachers, losses and schedule."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer

from .precision import Precision
from .section import Section


def _compiled(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from None
    return value


Expression = Annotated[str, AfterValidator(_compiled)]


class PairSourceConfig(Section):
    """Pairs of texts of the sentence stage: columns of tsv, jsonl or parquet, or plain text."""

    name: str
    files: list[str]
    license: str
    teacher_field: str = "text"  # column that the sentence teacher reads
    student_field: str = "text"  # column that the student reads; equal to it: one language
    only: dict[str, list[str]] = {}  # column -> values to keep
    without: dict[str, list[str]] = {}  # column -> values to leave out
    matching: Expression = ""  # must be found in the student's text
    cap: int = Field(0, ge=0)  # pairs of one value of `cap_by` at most; 0: no limit
    cap_by: str = ""
    limit: int = Field(0, ge=0)  # pairs at most, the first ones; 0: all

    @model_serializer(mode="wrap")
    def _as_before_limits(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not set, so that stages made before it could be count as equal."""
        values: dict[str, Any] = handler(self)
        return {k: v for k, v in values.items() if v or k not in ("limit", "matching")}


class TaskSourceConfig(Section):
    """Labelled texts of the sentence stage; the labels are those of the file.

    With `pair` they are grades of likeness: numbers, higher for texts more alike. With `smileys`
    the file is plain text, a text a line, and the classes are the moods of its smileys.
    """

    name: str
    train: str  # jsonl file, may be compressed; with `smileys` any text file
    license: str
    text: str = "text"  # key of the text
    pair: str = ""  # key of the second text
    label: str = "label"
    smileys: bool = False

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not set, so that stages made before it could be count as equal."""
        values: dict[str, Any] = handler(self)
        return {k: v for k, v in values.items() if v or k not in ("pair", "smileys")}


class MixedConfig(Section):
    """A checkpoint whose weights stay in part."""

    checkpoint: str  # folder: of the student's shape and with its pieces
    share: float = Field(gt=0, lt=1)


class AxesConfig(Section):
    """How the map is learnt that the vectors go through at the end: see AxesLearning."""

    whitening: float = Field(0.2, ge=0, le=1)
    twins: float = Field(1.0, ge=0)
    grades: float = Field(0.0, ge=0)  # of the pairs of `tasks`
    stay: float = Field(1000.0, ge=0)
    prefixes: float = Field(0.0, ge=0)  # of the same on the first sentence.prefixes dimensions
    steps: int = Field(300, ge=0)  # 0: the whitening alone
    learning_rate: float = Field(1e-3, gt=0)
    temperature: float = Field(0.05, gt=0)


class LexicalConfig(Section):
    """Vectors of pieces, learnt beside the student at the end: see LexicalLearning."""

    width: int = Field(128, ge=2, multiple_of=2)
    share: float = Field(0.3, gt=0, lt=1)
    twins: float = Field(0.2, ge=0, le=1)
    steps: int = Field(1500, ge=0)  # 0: as they are spelled
    batch: int = Field(1024, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    temperature: float = Field(0.05, gt=0)
    row_bits: Literal[0, 4] = 0  # as sentence.row_bits, of these vectors

    @model_serializer(mode="wrap")
    def _as_before_bits(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `row_bits` of 0, so that stages made before there were any count as equal."""
        values: dict[str, Any] = handler(self)
        return {k: v for k, v in values.items() if v or k != "row_bits"}


class SentenceConfig(Section):
    """The sentence stage: teacher's vectors, pairs, losses (see Sentences) and schedule."""

    teacher: str  # sentence encoder: directory, hub id, or an exported package
    revision: str = ""  # of a hub id
    teacher_name: str = ""  # for the model card; default: the last part of `teacher`
    teacher_beside: list[str] = []  # more encoders, whose vectors stand beside the teacher's
    sources: list[PairSourceConfig] = Field(min_length=1)
    exclude: list[str] = []  # files whose texts stay out on either side
    # A checkpoint with the line's vocabulary that learns on, such as what `rubert-lite export
    # distil-16k --variants fp32,safetensors` writes; default: the student of this line
    source: str = ""
    new_pieces: bool = False  # `source` (and those of `mix`) may have others: they change
    only_rows: Expression = ""  # of all weights the rows of pieces in which it is found learn alone
    # Checkpoints that the student comes from, `source` or others, and their shares in the weights
    # that are kept; the rest is what the last step left
    mix: list[MixedConfig] = []
    # A second sentence encoder, whose vectors the texts of 01-corpus should get: directory, hub id,
    # package, or a 05-sentence folder (its vectors are turned back into its own teacher's space)
    plain_teacher: str = ""
    plain_beside: list[str] = []  # more encoders of these texts, beside the second
    # The second teacher's vectors are brought to the first's by the linear map that does it best
    # over the pairs: it reads what the student reads, the first the other side
    plain_fitted: bool = False
    plain_share: float = Field(1.0, gt=0, le=1)  # of the texts of 01-corpus
    # Sentence encoders that read what the student reads, of pairs and of plain text: their vectors
    # stand beside those of the other teachers, with this share of every cosine (one that is named
    # twice counts twice)
    student_beside: list[str] = []
    student_beside_share: float = Field(0.2, gt=0, lt=1)
    student_beside_centred: bool = False  # without what each says of all texts alike
    directory: str = ""  # where 05-pairs and 05-vectors lie, to share them
    items: str = ""  # where 05-items lies, to share it between lines of one vocabulary and pairs
    cache: str = "runs/vectors"  # teacher vectors, a folder for each teacher
    max_chars: int = Field(500, ge=20)
    passages: float = Field(0.0, ge=0, lt=1)  # share of the pairs joined into long texts
    valid_share: float = Field(0.003, gt=0, lt=1)
    noise_share: float = Field(0.0, ge=0, le=1)  # share of texts also read with typing errors
    bare_share: float = Field(0.0, ge=0, le=1)  # share of texts also read without punctuation
    teacher_text_share: float = Field(0.0, ge=0, le=1)  # the student reads the teacher's, too
    max_length: int = Field(256, ge=8)  # pieces
    projection: Literal["rotation", "linear", "map", "axes"] = "rotation"
    whitening: float = Field(0.0, ge=0, le=1)  # of the rotated targets' dimensions
    prefixes: list[int] = [64, 128]  # first dimensions that must work alone
    regression: float = Field(1.0, ge=0)
    contrastive: float = Field(0.0, ge=0)
    similarity: float = Field(0.0, ge=0)
    temperature: float = Field(0.05, gt=0)
    bag: float = Field(0.0, ge=0)
    language: float = Field(0.0, ge=0)  # weight of the [distil] losses on the shards
    language_tokens: int = Field(2048, ge=16)  # padded pieces of them a step
    language_teacher: bool = True  # the line's teacher, if any, takes part in those losses
    tasks: list[TaskSourceConfig] = []
    labels: float = Field(0.0, ge=0)  # weight of the classes of texts of `tasks`
    labels_tokens: int = Field(2048, ge=16)  # padded pieces of them a step
    grades: float = Field(0.0, ge=0)  # weight of the likeness of pairs of `tasks`
    grades_tokens: int = Field(2048, ge=16)  # padded pieces of them a step
    # Share of pieces of texts of `tasks` that the student is not shown, others in each pass
    word_dropout: float = Field(0.0, ge=0, lt=1)
    # Vectors are turned at the end, so that their first dimensions say the most
    sort_dimensions: bool = True
    axes: AxesConfig | None = None  # a map that is learnt before they are sorted; default: none
    # A checkpoint that the student comes from: its vectors go through the axes of that one first
    former_axes: str = ""
    # Behind axes that stay: what they leave out, as further dimensions, this long against them
    remainder: float = Field(0.0, ge=0, le=10)
    lexical: LexicalConfig | None = None  # a vector of every piece beside it; default: none
    row_bits: Literal[0, 4] = 0  # 4: for the variants int4 and int4-static of the export
    steps: int = Field(1000, ge=0)  # 0: `source` as it is, mixed with others
    max_minutes: float = Field(0.0, ge=0)  # ends by the clock, too; 0: by steps alone
    tokens_per_batch: int = Field(8192, ge=16)
    accumulation: int = Field(1, ge=1)
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0)
    warmup_share: float = Field(0.05, ge=0, lt=1)
    decay: Literal["constant", "linear", "cosine"] = "linear"
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    precision: Precision = "no"  # bf16 where the device has units for it, float32 elsewhere
    seed: int = 42
    checkpoint_steps: int = Field(250, ge=1)
    validate_steps: int = Field(500, ge=1)
    log_steps: int = Field(20, ge=1)
