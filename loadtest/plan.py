"""What a load test does and what it demands: a TOML profile, checked as a whole."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = ("one", "batch", "classify")


@dataclass(frozen=True)
class Stage:
    """A stretch of time in which requests arrive at a rate that goes from `start` to `end`."""

    name: str
    seconds: float
    start: float  # requests a second
    end: float
    in_knees: bool = False  # rates are multiples of the knee that the stages before it showed


@dataclass(frozen=True)
class Limit:
    """What a stage must keep; times in milliseconds from the intended start of a request."""

    stage: str
    kind: str = ""  # empty: all kinds together
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    failures: float | None = None  # share of requests, 429 not counted
    refused: float | None = None  # share of requests answered 429
    goodput: float | None = None  # least answers (200) a second
    goodput_knees: float | None = None  # the same as a share of the knee
    p99_to_p50: float | None = None  # how many times the median the 99th percentile may be
    refused_p99: float | None = None  # of the answers 429


@dataclass(frozen=True)
class Profile:
    """A load test."""

    name: str
    stages: tuple[Stage, ...]
    limits: tuple[Limit, ...]
    mix: dict[str, float]  # kind -> share of requests
    batch: int = 16  # texts of a `batch` request
    words: int | None = None  # of every text; None: lengths as real ones have
    seed: int = 1
    connections: int = 64
    encoding: str = "base64"  # of vectors in answers
    memory_growth: float | None = None  # of the server, from a tenth of the time to the end

    def rate(self, second: float, knee: float = 0.0) -> float:
        """Return the rate at a time since the start, 0 after the end."""
        stage, past = self._at(second)
        if stage is None:
            return 0.0
        rate = stage.start + (stage.end - stage.start) * past / stage.seconds
        return rate * knee if stage.in_knees else rate

    def stage(self, second: float) -> str:
        """Name the stage at a time since the start."""
        stage, _ = self._at(second)
        return stage.name if stage else ""

    def needs_knee(self, second: float) -> bool:
        """Whether the rate at a time since the start is a multiple of the knee."""
        stage, _ = self._at(second)
        return stage is not None and stage.in_knees

    def _at(self, second: float) -> tuple[Stage | None, float]:
        for stage in self.stages:
            if second < stage.seconds:
                return stage, second
            second -= stage.seconds
        return None, 0.0

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return sum(stage.seconds for stage in self.stages)


def load_profile(path: Path) -> Profile:
    """Read a profile; ValueError names every mistake."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    problems: list[str] = []
    stages = tuple(
        _make(Stage, {**s, "end": s.get("end", s.get("start"))}, f"stages[{i}]", problems)
        for i, s in enumerate(data.pop("stages", []))
    )
    limits = tuple(
        _make(Limit, s, f"limits[{i}]", problems) for i, s in enumerate(data.pop("limits", []))
    )
    profile = _make(
        Profile, {"name": path.stem, **data, "stages": stages, "limits": limits}, "", problems
    )
    if profile is not None:
        names = {s.name for s in stages if s is not None}
        problems += [f"limits: no stage {x.stage!r}" for x in limits if x and x.stage not in names]
        problems += [
            f"mix: {k!r} is none of {', '.join(KINDS)}" for k in profile.mix if k not in KINDS
        ]
        if not stages:
            problems.append("stages: none")
        elif stages[0] is not None and stages[0].in_knees:
            problems.append("stages[0]: in_knees, but no stage before it shows a knee")
    if problems:
        raise ValueError(f"{path}: " + "; ".join(problems))
    assert isinstance(profile, Profile)
    return profile


def _make(kind: Any, values: dict[str, Any], place: str, problems: list[str]) -> Any:
    try:
        return kind(**values)
    except TypeError as error:
        problems.append(f"{place}: {error}".removeprefix(": "))
        return None
