"""What a task head learns from and is judged by: classes, entities, answers.

Each kind turns its examples into rows of pieces with target probabilities, and scores a model by
the same code that runs it in production (rubert_lite's Stream and SpanReader).
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, matthews_corrcoef

from rubert_lite.batches import Batching
from rubert_lite.engine import Runner
from rubert_lite.errors import InputError
from rubert_lite.inputs import check_text_or_pair
from rubert_lite.pieces import PieceReader, Pieces, Placed
from rubert_lite.predictions import softmax, windows
from rubert_lite.reader import SpanReader
from rubert_lite.stream import Stream

from .labelled import Example, Labelled, Tagged

logger = logging.getLogger(__name__)

Target = NDArray[np.float32]
Scores = dict[str, float]


@dataclass(frozen=True)
class Row:
    """A text as the model reads it, and the probabilities that its logits should give.

    target: [labels] of a class; [pieces, labels] of entities, rows of 0 where nothing is asked;
    [pieces, 2] of an answer, where each column sums to 1.
    """

    pieces: Pieces
    target: Target


class Kind(Protocol):
    """One kind of task over its examples."""

    @property
    def task(self) -> str:
        """One of rubert_lite.manifest.TASKS."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the columns of the logits."""

    @property
    def inputs(self) -> str:
        """Of classes: one of rubert_lite.manifest.INPUTS."""

    @property
    def metric(self) -> str:
        """The score that decides which epoch is kept, unless told otherwise."""

    def tell(self, reader: PieceReader, runner: Runner, *, max_length: int) -> list[Target]:
        """Return a tuned model's probabilities for each training example, for another to learn."""

    def rows(
        self, reader: PieceReader, *, max_length: int, told: Sequence[Target] | None = None
    ) -> list[Row]:
        """Return the training rows, with what another model has `told` in the labels' place."""

    def score(self, reader: PieceReader, runner: Runner, *, max_length: int) -> Scores:
        """Judge a model on the dev split."""


@dataclass(frozen=True)
class Classes:
    """Classes of texts or of pairs of texts."""

    data: Labelled[Example]
    balance: bool = False  # every class weighs the same, however rare
    task: str = field(default="classification", init=False)
    metric: str = field(default="macro_f1", init=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.data.labels

    @property
    def inputs(self) -> str:
        """Tell whether it is texts or pairs that have the classes."""
        return "texts" if self.data.train[0].pair is None else "pairs"

    def tell(self, reader: PieceReader, runner: Runner, *, max_length: int) -> list[Target]:
        """Return the probabilities [labels] of each training text."""
        return list(softmax(self._judge(self.data.train, reader, runner, max_length)))

    def rows(
        self, reader: PieceReader, *, max_length: int, told: Sequence[Target] | None = None
    ) -> list[Row]:
        """Return a row for each text; with `balance`, a label counts its class's weight."""
        if told is None:
            eye = np.diag(class_weights(self.data)) if self.balance else np.eye(len(self.labels))
            told = [eye[e.label].astype(np.float32) for e in self.data.train]
        found = reader.read([_text(e) for e in self.data.train])
        return [Row(p, t) for p, t in zip(found, told, strict=True)]

    def score(self, reader: PieceReader, runner: Runner, *, max_length: int) -> Scores:
        """Return accuracy, macro_f1, weighted_f1 and mcc."""
        logits = self._judge(self.data.dev, reader, runner, max_length)
        return class_scores(logits.argmax(1), [e.label for e in self.data.dev])

    @staticmethod
    def _judge(
        examples: Sequence[Example], reader: PieceReader, runner: Runner, max_length: int
    ) -> Target:
        stream = Stream(reader, runner, batching=batching(max_length))
        read = stream.read(map(_text, examples), "logits", check=check_text_or_pair)
        return np.concatenate(list(read))


def _text(example: Example) -> str | tuple[str, str]:
    return example.text if example.pair is None else (example.text, example.pair)


def batching(max_length: int) -> Batching:
    """Return how texts are read in tuning: batches of equal length, with types."""
    return Batching(max_length, with_types=True, padded=False)


def class_weights(data: Labelled[Example]) -> Target:
    """Return weights [C] that give every class the same share of the training loss."""
    counts = np.bincount([e.label for e in data.train], minlength=len(data.labels))
    # Few examples may lack a class: its weight is never used.
    each = len(data.train) / (len(data.labels) * np.maximum(counts, 1))
    weights: Target = each.astype(np.float32)
    return weights


def class_scores(predicted: NDArray[np.int64], labels: Sequence[int]) -> Scores:
    """Measure predicted class indices; a class that is never predicted has F1 0.

    macro_f1 is the mean over the classes of `labels`.
    """
    found = {"accuracy": float(np.mean(predicted == np.asarray(labels)))}
    # Of the classes that are there: one that is only predicted would change what is averaged.
    there = sorted(set(labels))
    for average in ("macro", "weighted"):
        found[f"{average}_f1"] = float(
            f1_score(labels, predicted, labels=there, average=average, zero_division=0)
        )
    found["mcc"] = float(matthews_corrcoef(labels, predicted))
    return {name: round(value, 5) for name, value in found.items()}


@dataclass(frozen=True)
class Entities:
    """Entities, told by the label of the first piece of each word."""

    data: Labelled[Tagged]
    task: str = field(default="token-classification", init=False)
    inputs: str = field(default="", init=False)
    metric: str = field(default="f1", init=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """O, and B-X and I-X of each kind."""
        return self.data.labels

    def tell(self, reader: PieceReader, runner: Runner, *, max_length: int) -> list[Target]:
        """Return the probabilities [words, labels] of each training text."""
        spans = SpanReader(reader, runner, batching=batching(max_length))
        words = spans.windows.words([t.text for t in self.data.train])
        return [softmax(rows) for _, rows in spans.complete(words)]

    def rows(
        self, reader: PieceReader, *, max_length: int, told: Sequence[Target] | None = None
    ) -> list[Row]:
        """Return rows of whole texts, and of windows of those that are longer."""
        index = {name: i for i, name in enumerate(self.labels)}
        eye = np.eye(len(self.labels), dtype=np.float32)
        found: list[Row] = []
        placed = reader.locate([t.text for t in self.data.train])
        if told is None:
            _tell_lost(self.data.train, placed)
        for number, (text, p) in enumerate(zip(self.data.train, placed, strict=True)):
            marks = list(word_labels(p, text.spans))
            values = [eye[index[mark]] for _, mark in marks] if told is None else told[number]
            if len(values) != len(marks):
                raise InputError(
                    f"{text.text[:40]!r}: {len(values)} words for the teacher, {len(marks)} for the"
                    " student: finetune.soft needs tokenizers that find the same words"
                )
            target = np.zeros((len(p.ids), len(self.labels)), np.float32)
            for (piece, _), value in zip(marks, values, strict=True):
                target[piece] = value
            found += _cut(p, target, reader, max_length)
        return found

    def score(self, reader: PieceReader, runner: Runner, *, max_length: int) -> Scores:
        """Return precision, recall and F1 of entities: kind and both ends must be right."""
        spans = SpanReader(reader, runner, batching=batching(max_length))
        told = spans.complete(spans.windows.entities([t.text for t in self.data.dev], self.labels))
        hits = said = wanted = 0
        for entities, text in zip(told, self.data.dev, strict=True):
            guessed = {(e.start, e.end, e.label) for e in entities}
            hits += len(guessed & set(text.spans))
            said, wanted = said + len(guessed), wanted + len(text.spans)
        return {
            "f1": round(2 * hits / max(said + wanted, 1), 5),
            "precision": round(hits / max(said, 1), 5),
            "recall": round(hits / max(wanted, 1), 5),
        }


def _tell_lost(texts: Sequence[Tagged], placed: Sequence[Placed]) -> None:
    """Warn of entities that begin or end inside a word: words are what is labelled."""
    entities = lost = 0
    for text, p in zip(texts, placed, strict=True):
        pairs = list(zip(p.words, p.places, strict=True))
        after = [word for word, _ in pairs[1:]] + [None]
        before = [None] + [word for word, _ in pairs[:-1]]
        starts = {place[0] for (word, place), w in zip(pairs, before, strict=True) if word != w}
        ends = {place[1] for (word, place), w in zip(pairs, after, strict=True) if word != w}
        entities += len(text.spans)
        lost += sum(start not in starts or end not in ends for start, end, _ in text.spans)
    if lost:
        logger.warning(
            "%d of %d entities are no whole words of this tokenizer: they cannot be told as they"
            " stand",
            lost,
            entities,
        )


def word_labels(placed: Placed, spans: Sequence[tuple[int, int, str]]) -> Iterator[tuple[int, str]]:
    """Yield the first piece of each word and its label.

    A word belongs to the entity that its first piece begins in; the first such word is its B.
    """
    waiting = list(spans)
    begun = False
    word = -1
    for index, (start, _) in enumerate(placed.places):
        if placed.words[index] == word:
            continue
        word = placed.words[index]
        while waiting and waiting[0][1] <= start:
            waiting.pop(0)
            begun = False
        if waiting and waiting[0][0] <= start:
            yield index, f"{'I' if begun else 'B'}-{waiting[0][2]}"
            begun = True
        else:
            yield index, "O"


def _cut(placed: Placed, target: Target, reader: PieceReader, max_length: int) -> Iterator[Row]:
    edge = np.zeros((1, target.shape[1]), np.float32)
    for start, stop in windows(len(placed.ids), room=max_length - 2):
        if stop > start:
            part = np.concatenate([edge, target[start:stop], edge])
            yield Row(reader.frame(placed.ids[start:stop]), part)
