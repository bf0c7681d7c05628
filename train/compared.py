"""What a comparison compares: students, tasks, and the training line of each row."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from rubert_lite.errors import ConfigError

from .config import FinetuneConfig, load_config
from .folders import Line
from .labelled import SCORES
from .section import Section, explain, load_section, merge


class ComparedTask(FinetuneConfig):
    """A task of the comparison: how students are tuned on it, and which dev score is told."""

    score: str  # e.g. weighted_f1
    heading: str = ""  # of its column
    # The teacher knows nothing of it: told for first seeds alone, not counted in what is kept
    aside: bool = False
    counted: bool = True  # off: told, but no part of what a student keeps

    def tuning(self, *, given: bool = False) -> dict[str, Any]:
        """Return how students are tuned on it: all settings, or those `given` that differ."""
        return self.model_dump(
            exclude={"heading", "score", "aside", "counted"}, exclude_defaults=given
        )


class ComparedStudent(Section):
    """A row of the table: a training line with changes, or another line as it stands."""

    name: str
    line: str = ""  # TOML of a line that is taken as it stands, in its own folder: the teacher's
    set: dict[str, Any] = {}  # changes of the common line, table by table
    like: str = ""  # another row, whose trained student this one takes and tunes in its own way
    seeds: list[int] = Field([42], min_length=1)  # of distillation and tuning together
    tasks: list[str] = []  # names; default: all
    soft: bool = False  # tuned on the probabilities of the first row's tuned model, not on labels
    # Steps of distillation on a task's texts before it is tuned, from the first row's tuned model
    words: int = Field(0, ge=0)
    tuning: dict[str, Any] = {}  # changes of how it is tuned, on all tasks
    keep: bool = False  # tuned models stay on disk


class CompareConfig(Section):
    """What is compared on what; the first student is the teacher, whose scores are 100%."""

    line: str  # TOML of the training line that students change
    run: str  # folder of the students' runs
    results: str  # json file
    table: str = ""  # Markdown file, between `<!-- table_name -->` and `<!-- /table_name -->`
    table_name: str = "comparison"
    # Held-out measures of the distillation told in the table, too: key in metrics -> heading
    measures: dict[str, str] = {}
    sizes: bool = True  # off: the table leaves out what students of one shape have in common
    plot: str = ""  # png: what is kept against parameters
    decisive: list[str] = []  # tasks whose scores are drawn seed by seed
    decisive_plot: str = ""  # png
    tuning: dict[str, Any] = {}  # of all tasks, unless they say otherwise
    students: list[ComparedStudent] = Field(min_length=1)
    tasks: list[ComparedTask] = Field(min_length=1)


def load_comparison(path: Path, overrides: Sequence[str] = ()) -> CompareConfig:
    """Read and check the TOML file of a comparison, and every line in it."""
    config: CompareConfig = load_section(CompareConfig, path, overrides)
    problems = []
    for kind, names in (
        ("students", [s.name for s in config.students]),
        ("tasks", [t.name for t in config.tasks]),
    ):
        problems += [
            f"{kind}: {n!r} stands twice" for n in {n for n in names if names.count(n) > 1}
        ]
    try:
        config = config.model_copy(update={"tasks": [_tuned(config, t) for t in config.tasks]})
    except ValidationError as error:
        problems += [f"tuning.{explain(e, ComparedTask)}" for e in error.errors()]
    for task in config.tasks:
        scores = SCORES[task.task]
        problems += [
            f"tasks.{task.name}: {key} = {value!r}, expected one of {', '.join(scores)}"
            for key, value in (("score", task.score), ("metric", task.metric or task.score))
            if value not in scores
        ]
    known = {t.name for t in config.tasks}
    problems += [f"decisive: no task {name!r}" for name in config.decisive if name not in known]
    for student in config.students:
        problems += [f"{student.name}: no task {t!r}" for t in student.tasks if t not in known]
        if sum(map(bool, (student.line, student.set, student.like))) > 1:
            problems.append(f"{student.name}: line, set and like exclude each other")
        for task in config.tasks:
            try:
                ComparedTask.model_validate(task.model_dump() | student.tuning)
            except ValidationError as error:
                told = [explain(e, ComparedTask) for e in error.errors()]
                problems += [f"{student.name}: tuning.{what}" for what in told]
                break
        model = next((s for s in config.students if s.name == student.like), None)
        if student.like and (model is None or model.like):
            problems.append(f"{student.name}: like = {student.like!r} is no row that is trained")
            continue
        try:
            line_of(config, student, student.seeds[0])
        except ConfigError as error:
            problems.append(f"{student.name}: {error}")
    if problems:
        raise ConfigError(problems)
    return config


def _tuned(config: CompareConfig, task: ComparedTask) -> ComparedTask:
    """Fill in what all tasks have in common."""
    return ComparedTask.model_validate(config.tuning | task.model_dump(exclude_unset=True))


def tasks_of(
    config: CompareConfig, student: ComparedStudent, seed: int, names: Sequence[str] = ()
) -> list[ComparedTask]:
    """Return the tasks of a student and seed, of these `names` (default: all).

    Raises ConfigError for a name that the configuration does not have.
    """
    unknown = set(names) - {t.name for t in config.tasks}
    if unknown:
        raise ConfigError([f"--task {min(unknown)}: no such task"])
    return [
        t
        for t in config.tasks
        if (not student.tasks or t.name in student.tasks)
        and (not names or t.name in names)
        and (not t.aside or seed == student.seeds[0])
    ]


def rows_of(
    config: CompareConfig, only: Sequence[str] = (), seeds: Sequence[int] = ()
) -> list[tuple[ComparedStudent, int]]:
    """Return students and seeds in the order they are computed: every student's first seed first.

    `only` names students, `seeds` seeds; both default to all. Raises ConfigError for a name or seed
    that the configuration does not have.
    """
    unknown = [n for n in only if n not in {s.name for s in config.students}]
    if unknown:
        raise ConfigError([f"--only {unknown[0]}: no such student"])
    chosen = [s for s in config.students if not only or s.name in only]
    rows = [(k, s, seed) for s in chosen for k, seed in enumerate(s.seeds)]
    found = [(s, seed) for _, s, seed in sorted(rows, key=lambda row: row[0])]
    strange = set(seeds) - {seed for _, seed in found}
    if strange:
        raise ConfigError([f"--seed {min(strange)}: no student that was asked for has it"])
    return [(s, seed) for s, seed in found if not seeds or seed in seeds]


def line_of(
    config: CompareConfig, student: ComparedStudent, seed: int, *, force: bool = False
) -> Line:
    """Return the training line of a student and seed."""
    if student.like:
        student = next(s for s in config.students if s.name == student.like)
    if student.line:
        return Line(load_config(Path(student.line)), force)
    folder = f"{config.run}/{student.name.replace(' ', '-')}-{seed}"
    changes = merge(student.set, {"run": folder, "distil": {"seed": seed}})
    return Line(load_config(Path(config.line), changes=changes), force)
