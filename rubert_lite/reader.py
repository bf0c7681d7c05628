"""Read long texts piece by piece: entities and answers with their places in the text as given.

A text past the model's length is read in overlapping windows; each piece is judged in the window
where it stands farthest from a cut, so that most have context on both sides.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from .batches import Batching
from .engine import Runner
from .pieces import PieceReader, Pieces, Placed
from .predictions import Answer, Entity, Logits, best_span, read_entities, windows

T = TypeVar("T")

Words = tuple[list[tuple[int, int]], Logits]  # places [start, end) of words, logits of each


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What has to be computed to read some texts, and what follows from it.

    `finish` takes the logits of each of the `windows`, [pieces, labels], in their order, and
    returns what was wanted of each text. Rows of padding may follow those of the pieces.
    """

    windows: list[Pieces]
    finish: Callable[[Sequence[Logits]], list[T]]


class WindowReader:
    """Cuts texts of any length into windows that a model of `max_length` pieces can read."""

    def __init__(self, pieces: PieceReader, *, max_length: int) -> None:
        """Borrow the tokenizer of a model."""
        self._pieces = pieces
        self._max_length = max_length

    def entities(self, texts: Sequence[str], labels: Sequence[str]) -> Reading[list[Entity]]:
        """Read the entities of each text, in their order in it."""
        words = self.words(texts)

        def finish(logits: Sequence[Logits]) -> list[list[Entity]]:
            return [
                read_entities(text, places, rows, labels) if places else []
                for text, (places, rows) in zip(texts, words.finish(logits), strict=True)
            ]

        return Reading(words.windows, finish)

    def words(self, texts: Sequence[str]) -> Reading[Words]:
        """Read the words of each text: their places, and the logits [words, labels]."""
        placed = self._pieces.locate(texts)
        room = self._max_length - 2
        stretches = [list(windows(len(p.ids), room=room)) for p in placed]
        frames = [
            self._pieces.frame(p.ids[a:b])
            for p, cuts in zip(placed, stretches, strict=True)
            for a, b in cuts
        ]

        def finish(logits: Sequence[Logits]) -> list[Words]:
            coming = _unpadded(frames, logits)
            found = []
            for p, cuts in zip(placed, stretches, strict=True):
                rows = _join([(a, next(coming)[1:-1]) for a, _ in cuts], cuts, len(p.ids))
                firsts, places = _words(p)
                found.append((places, rows[firsts]))
            return found

        return Reading(frames, finish)

    def answers(self, pairs: Sequence[tuple[str, str]]) -> Reading[Answer]:
        """Read the best answer to each (question, context) out of the context."""
        placed = self._pieces.locate([text for pair in pairs for text in pair])
        frames: list[Pieces] = []
        stretches = []
        for question, context in zip(placed[::2], placed[1::2], strict=True):
            room = self._max_length - 3
            asked = question.ids[: room // 2]
            cuts = list(windows(len(context.ids), room=room - len(asked)))
            frames += [self._pieces.frame(asked, context.ids[a:b]) for a, b in cuts]
            stretches.append(cuts)

        def finish(logits: Sequence[Logits]) -> list[Answer]:
            coming = zip(frames, _unpadded(frames, logits), strict=True)
            found = []
            for (_, text), p, cuts in zip(pairs, placed[1::2], stretches, strict=True):
                best = (-1.0, 0, 0)
                for start, _ in cuts:
                    frame, rows = next(coming)
                    places = np.arange(len(frame.ids))
                    inside = (places >= frame.second) & (places < len(frame.ids) - 1)
                    score, first, last = best_span(rows, inside)
                    shift = start - frame.second
                    best = max(best, (score, first + shift, last + shift))
                found.append(_answer(text, p, best))
            return found

        return Reading(frames, finish)


class SpanReader:
    """The pieces and the graph of a model whose logits are [batch, length, labels]."""

    def __init__(self, pieces: PieceReader, engine: Runner, *, batching: Batching) -> None:
        """Borrow the parts of a model."""
        self.windows = WindowReader(pieces, max_length=batching.max_length)
        self._engine = engine
        self._batching = batching

    def complete(self, reading: Reading[T]) -> list[T]:
        """Compute the windows of a reading, and finish it."""
        frames = reading.windows
        found: list[Logits] = [np.empty((0, 0), np.float32)] * len(frames)
        for indices, rows in self._engine.run_all(self._batching.split(frames), "logits"):
            for index, row in zip(indices, rows, strict=True):
                found[index] = row
        return reading.finish(found)


def _unpadded(frames: Sequence[Pieces], logits: Sequence[Logits]) -> Iterator[Logits]:
    for frame, rows in zip(frames, logits, strict=True):
        yield rows[: len(frame.ids)]


def _join(
    parts: Sequence[tuple[int, Logits]], cuts: Sequence[tuple[int, int]], length: int
) -> Logits:
    """Put the rows of overlapping windows together, each from the window with most context."""
    whole = np.empty((length, parts[0][1].shape[1]), np.float32)
    ends = [stop for _, stop in cuts]
    begins = [start for start, _ in cuts]
    # The middle of what two windows share divides them.
    bounds = [
        0,
        *((a + b) // 2 for a, b in zip(begins[1:], ends[:-1], strict=True)),
        length,
    ]
    for (start, rows), low, high in zip(parts, bounds[:-1], bounds[1:], strict=True):
        whole[low:high] = rows[low - start : high - start]
    return whole


def _words(placed: Placed) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
    """Return the first piece of each word, and where the word stands in the text."""
    firsts: list[int] = []
    places: list[tuple[int, int]] = []
    for index, (word, place) in enumerate(zip(placed.words, placed.places, strict=True)):
        if index and word == placed.words[index - 1]:
            places[-1] = (places[-1][0], place[1])
        else:
            firsts.append(index)
            places.append(place)
    return np.asarray(firsts, dtype=np.int64), places


def _answer(text: str, placed: Placed, best: tuple[float, int, int]) -> Answer:
    score, first, last = best
    if score <= 0 or not placed.ids:
        return Answer("", 0, 0, 0.0)
    start, end = placed.places[first][0], placed.places[last][1]
    return Answer(text[start:end], start, end, score)
