"""Answers as stretches of a context: what a head learns from, and is judged by."""

import logging
import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rubert_lite.engine import Runner
from rubert_lite.errors import InputError
from rubert_lite.pieces import PieceReader, Placed
from rubert_lite.predictions import windows
from rubert_lite.reader import SpanReader

from .heads import Row, Scores, Target, batching
from .labelled import Asked, Labelled

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answers:
    """Stretches of a context that answer a question."""

    data: Labelled[Asked]
    task: str = field(default="question-answering", init=False)
    inputs: str = field(default="", init=False)
    metric: str = field(default="f1", init=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """The two ends of an answer."""
        return self.data.labels

    def tell(self, reader: PieceReader, runner: Runner, *, max_length: int) -> list[Target]:
        """Refuse: the ends of answers in two tokenizers' pieces differ."""
        raise InputError("finetune.soft: not for question-answering: leave it out")

    def rows(
        self, reader: PieceReader, *, max_length: int, told: Sequence[Target] | None = None
    ) -> list[Row]:
        """Return the windows of every context; one without an answer points at its [CLS].

        In a window that has one of the accepted answers it is the first of them; a window that
        cuts one and has none is left out, and so is a question whose answers no window has whole.
        """
        found: list[Row] = []
        lost = 0
        placed = reader.locate([t for a in self.data.train for t in (a.question, a.context)])
        room = max_length - 3
        for asked, q, c in zip(self.data.train, placed[::2], placed[1::2], strict=True):
            question = q.ids[: room // 2]
            accepted = [_answer_pieces(c, answer) for answer in asked.answers]
            rows, answered = [], False
            for start, stop in windows(len(c.ids), room=room - len(question)):
                frame = reader.frame(question, c.ids[start:stop])
                target = np.zeros((len(frame.ids), 2), np.float32)
                whole = [(a, b) for a, b in accepted if start <= a and b < stop]
                if not whole and any(a < stop and b >= start for a, b in accepted):
                    continue
                shift = frame.second - start
                first, last = (place + shift for place in whole[0]) if whole else (0, 0)
                target[first, 0] = target[last, 1] = 1
                rows.append(Row(frame, target))
                answered = answered or bool(whole)
            lost += not answered
            found += rows if answered else []
        if lost:
            logger.warning(
                "%d of %d questions are left out: no window of %d pieces holds an answer whole",
                lost,
                len(self.data.train),
                max_length,
            )
        if not found:
            raise InputError(
                f"no answer fits into a window of {max_length} pieces: raise finetune.max_length"
            )
        return found

    def score(self, reader: PieceReader, runner: Runner, *, max_length: int) -> Scores:
        """Return f1 (words shared with the best accepted answer) and em (equal to one of them)."""
        spans = SpanReader(reader, runner, batching=batching(max_length))
        reading = spans.windows.answers([(a.question, a.context) for a in self.data.dev])
        exact, shared = [], []
        for answer, asked in zip(spans.complete(reading), self.data.dev, strict=True):
            accepted = [_bare(asked.context[a:b]) for a, b in asked.answers]
            words = _bare(answer.text)
            exact.append(words in accepted)
            shared.append(max(_word_f1(words, gold) for gold in accepted))
        return {"f1": round(float(np.mean(shared)), 5), "em": round(float(np.mean(exact)), 5)}


def _answer_pieces(placed: Placed, answer: tuple[int, int]) -> tuple[int, int]:
    """Return the first and last piece that touch the characters of an answer."""
    touched = [i for i, (a, b) in enumerate(placed.places) if a < answer[1] and b > answer[0]]
    return (touched[0], touched[-1]) if touched else (-1, -1)


_PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}«»—–…]")


def _bare(text: str) -> tuple[str, ...]:
    """Return the words of an answer without case and punctuation, as SQuAD's measure does."""
    return tuple(_PUNCTUATION.sub(" ", text.lower()).split())


def _word_f1(words: Sequence[str], gold: Sequence[str]) -> float:
    common = sum((Counter(words) & Counter(gold)).values())
    return 2 * common / (len(words) + len(gold)) if common else float(words == gold)
