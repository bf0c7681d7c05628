"""The workloads of the benchmark."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from texts import make_texts
from tokenizers import Tokenizer

_WARM_UP = 256  # texts of a workload whose whole would take minutes


@dataclass(frozen=True)
class Work:
    """A column: texts, how they are given, and how often."""

    name: str
    texts: Sequence[str]
    each: bool  # one at a time
    threads: int
    rounds: int
    parted: bool = False  # every round has its own part of the texts: as many calls, more turns

    def part(self, number: int) -> Sequence[str]:
        """Return the texts of a round; round 0 warms up."""
        if not self.parted:
            return self.texts
        return self.texts[:_WARM_UP] if number == 0 else self.texts[number - 1 :: self.rounds]


def make_work(tokenizer: Tokenizer, *, quick: bool) -> list[Work]:
    """Return the workloads; lengths are in pieces of `tokenizer`, specials included."""
    stream = make_texts(7)

    def exactly(pieces: int) -> str:
        text = ""
        while len(tokenizer.encode(text).ids) < pieces:
            text = f"{text} {next(stream)}".strip()
        while len(tokenizer.encode(text).ids) > pieces:
            text = text[:-1].rstrip()
        return text

    def of_characters(count: int) -> str:
        text = ""
        while len(text) < count:
            text = f"{text} {next(stream)}".strip()
        return text[:count].rstrip()

    share = 5 if quick else 1
    real = [next(stream) for _ in range(20_000 // share)]
    return [
        Work("one text, 16 pieces", [exactly(16) for _ in range(200 // share)], True, 1, 5),
        Work("one text, 64 pieces", [exactly(64) for _ in range(100 // share)], True, 1, 5),
        # Equal text for every vocabulary; the lengths above are equal work.
        Work(
            "one text, 80 characters", [of_characters(80) for _ in range(200 // share)], True, 1, 5
        ),
        Work("512 pieces, batch 1", [exactly(512) for _ in range(8 // min(share, 2))], True, 1, 3),
        Work("512 pieces, batch 16", [exactly(512) for _ in range(16)], False, 1, 3),
        Work(f"{len(real):,} real lengths", real, False, usable_cpus(), 5, parted=True),
    ]


def usable_cpus() -> int:
    """Count the CPUs of this process."""
    return len(os.sched_getaffinity(0))
