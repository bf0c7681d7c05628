"""The choices of a sentence stage, and what it reads."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .batches import Texts
from .graded import GradedPairs
from .labels import LabelledTexts
from .recipe import Recipe


@dataclass(frozen=True)
class Sentences:
    """The choices of a sentence stage; weights of 0 leave a loss out."""

    regression: float = 1.0  # 1 - cosine with the target
    contrastive: float = 0.0
    similarity: float = 0.0
    temperature: float = 0.05  # of contrastive, similarity and grades
    prefixes: tuple[int, ...] = (64, 128)  # besides the whole vector
    # rotation: the student's own vector is compared with the rotated and cut teacher's; linear: a
    # trained map takes it to the teacher's width (LEAF, arXiv 2509.12539), thrown away; map: a
    # map [D, D] that begins as the regression of the targets on what the student says learns along
    # and stays, in the axes that export turns vectors by; axes: those of another checkpoint
    # (FormerAxes) take it to a teacher of its own width, and stay as they are; its vectors of
    # pieces, if it has any, learn along.
    projection: Literal["rotation", "linear", "map", "axes"] = "rotation"
    # Of the rotated targets' dimensions, see principal_rotation: evened a little, what few texts
    # share (names, rare words) weighs more beside what kind of text it is.
    whitening: float = 0.0
    # Which pieces the text has; of the language's texts, too, unless a teacher reads plain text.
    bag: float = 0.0
    language: float = 0.0  # weight of the losses on plain text
    language_tokens: int = 2048
    labels: float = 0.0  # classes of labelled texts
    labels_tokens: int = 2048
    grades: float = 0.0  # likeness of graded pairs
    grades_tokens: int = 2048
    # Of pieces of labelled and graded texts: hidden from the student, others in each pass
    word_dropout: float = 0.0
    row_bits: int = 0  # 4: rows of pieces are trained for the export's 4-bit table


@dataclass(frozen=True)
class Language:
    """Plain text that keeps the student a language model, and how it is read."""

    texts: Texts
    valid: Texts | None
    recipe: Recipe
    counts: Tensor | None = None  # [V] pieces of the corpus; `Sentences.bag` needs them


@dataclass(frozen=True)
class Sources:
    """What a sentence stage reads besides the pairs."""

    language: Language | None = None
    labelled: LabelledTexts | None = None
    graded: GradedPairs | None = None
