"""Compare ways to distil: every student is trained, tuned on every task, and put into one table.

A configuration names students (a training line with changes) and tasks. Cells are computed in the
order of the file, each once, and written to the results at once: the table fills in, and a killed
run goes on.
"""

import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from tokenizers import Tokenizer
from tqdm import tqdm

from rubert_lite import __version__
from rubert_lite.errors import ConfigError
from rubert_lite.normalize import normalize_text

from .comparison import comparison_table, plot_comparison
from .config import FinetuneConfig, LineConfig, load_config
from .corpus import expand
from .folders import Line, fingerprint_source
from .heads import SCORES
from .line import run_line
from .line_tasks import finetune_head, learn_task_words
from .pairs import read_lines
from .results import insert, write_json
from .section import Section, explain, load_section, merge
from .stage import fingerprint_files

logger = logging.getLogger(__name__)

_BEFORE = ("corpus", "vocabulary", "shards", "distil")
_SAMPLE = 20_000  # held-out texts that pieces are counted on


class ComparedTask(FinetuneConfig):
    """A task of the comparison: how students are tuned on it, and which dev score is told."""

    score: str  # e.g. weighted_f1
    heading: str = ""  # of its column


class ComparedStudent(Section):
    """A row of the table: a training line with changes, or another line as it stands."""

    name: str
    line: str = ""  # TOML of a line that is taken as it stands, in its own folder: the teacher's
    set: dict[str, Any] = {}  # changes of the common line, table by table
    seeds: list[int] = Field([42], min_length=1)  # of distillation and tuning together
    tasks: list[str] = []  # names; default: all
    soft: bool = False  # tuned on the probabilities of the first row's tuned model, not on labels
    # Steps of distillation on a task's texts before it is tuned, from the first row's tuned model
    words: int = Field(0, ge=0)
    keep: bool = False  # tuned models stay on disk


class CompareConfig(Section):
    """What is compared on what; the first student is the teacher, whose scores are 100%."""

    line: str  # TOML of the training line that students change
    run: str  # folder of the students' runs
    results: str  # json file
    table: str = ""  # Markdown file, between `<!-- comparison -->` and `<!-- /comparison -->`
    plot: str = ""  # png
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
    for student in config.students:
        problems += [f"{student.name}: no task {t!r}" for t in student.tasks if t not in known]
        if student.line and student.set:
            problems.append(f"{student.name}: line and set exclude each other")
        try:
            _line(config, student, student.seeds[0])
        except ConfigError as error:
            problems.append(f"{student.name}: {error}")
    if problems:
        raise ConfigError(problems)
    return config


def _tuned(config: CompareConfig, task: ComparedTask) -> ComparedTask:
    """Fill in what all tasks have in common."""
    return ComparedTask.model_validate(config.tuning | task.model_dump(exclude_unset=True))


def compare(config: CompareConfig, *, only: Sequence[str] = (), force: bool = False) -> None:
    """Compute the missing cells of the students `only` (default: all) and write the table.

    `force` computes them all anew, and makes anew the stages that differ.
    """
    path = Path(config.results)
    unknown = sorted(set(only) - {s.name for s in config.students})
    if unknown:
        raise ConfigError([f"--only {unknown[0]}: no such student"])
    chosen = [s for s in config.students if not only or s.name in only]
    work = [(s, seed, t) for s in chosen for seed in s.seeds for t in _tasks(config, s)]
    bar = tqdm(total=len(work), desc="compare", unit="cell", disable=None)
    for student, seed, task in work:
        bar.set_postfix_str(f"{student.name}, seed {seed}: {task.name}")
        identity = _identity(config, student, task)
        done = _read_results(path).get(student.name, {}).get("seeds", {}).get(str(seed), {})
        if force or done.get("tasks", {}).get(task.name, {}).get("identity") != identity:
            line = _line(config, student, seed, force=force)
            run_line(line, _BEFORE)
            facts, metrics = _facts(line), _training(line)["metrics"]
            started = time.perf_counter()
            scores = _tune(config, student, seed, task, line)
            seconds = round(time.perf_counter() - started, 1)
            # Read again: another process may have filled in other rows meanwhile.
            results = _read_results(path)
            row = results.setdefault(student.name, {"seeds": {}})
            row["facts"] = facts
            cells = row["seeds"].setdefault(str(seed), {"tasks": {}})
            cells["distil"] = metrics
            cells["tasks"][task.name] = {"identity": identity, **scores, "seconds": seconds}
            write_json(path, results)
        bar.update()
    bar.close()
    _report(config, _read_results(path))


def _read_results(path: Path) -> dict[str, Any]:
    return _read(path) if path.is_file() else {}


def _tasks(config: CompareConfig, student: ComparedStudent) -> list[ComparedTask]:
    return [t for t in config.tasks if not student.tasks or t.name in student.tasks]


def _line(
    config: CompareConfig, student: ComparedStudent, seed: int, *, force: bool = False
) -> Line:
    if student.line:
        return Line(load_config(Path(student.line)), force)
    folder = f"{config.run}/{student.name.replace(' ', '-')}-{seed}"
    changes = merge(student.set, {"run": folder, "distil": {"seed": seed}})
    return Line(load_config(Path(config.line), changes=changes), force)


def _identity(config: CompareConfig, student: ComparedStudent, task: ComparedTask) -> str:
    """Identify what a cell follows from, but for the seed: settings, teachers, texts, version."""
    line = _line(config, student, 0)
    parts: dict[str, Any] = {
        "line": _followed(line),
        "task": task.model_dump(exclude={"heading", "score"}, exclude_defaults=True),
        "data": fingerprint_files([task.train, task.dev]),
        "version": __version__,
    }
    if student.soft or student.words:
        parts |= {"soft": student.soft, "words": student.words}
        parts["teacher"] = _identity(config, config.students[0], task)
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _followed(line: Line) -> dict[str, Any]:
    """Return what the student of a line follows from, its teacher's line included."""
    c = line.config
    found: dict[str, Any] = {
        "settings": c.model_dump(exclude={"run", "sentence", "finetune"}, exclude_defaults=True),
        "texts": fingerprint_files(p for s in c.corpus.sources for p in expand(s.files, s.name)),
        "teacher": fingerprint_source(c.teacher.path),
    }
    if c.teacher.config:
        found["teacher"] = _followed(line.teacher_line())
    return found


def _tune(
    config: CompareConfig, student: ComparedStudent, seed: int, task: ComparedTask, line: Line
) -> dict[str, float]:
    teacher = config.students[0]
    first = teacher.seeds[0]
    knows = _line(config, teacher, first).folder(_folder(task, first))
    settings = task.model_dump(exclude={"heading", "score"})
    settings |= {"name": f"{task.name}-{seed}", "seed": seed}
    if student.soft:
        settings["soft"] = str(knows)
    words = line.folder(f"05-words-{task.name}-{seed}")
    if student.words:
        learn_task_words(line, task, words, teacher=knows, steps=student.words)
        settings["source"] = str(words)
    tuned = Line(
        LineConfig.model_validate(line.config.model_dump() | {"finetune": settings}), force=True
    )
    finetune_head(tuned)
    folder = tuned.folder(_folder(task, seed))
    scores: dict[str, float] = _read(folder / "training.json")["metrics"][f"{task.name}-{seed}"]
    if not (student.keep or student is teacher):
        shutil.rmtree(folder)  # its scores are what is wanted
        shutil.rmtree(words, ignore_errors=True)
    return scores


def _folder(task: ComparedTask, seed: int) -> str:
    return f"06-{task.name}-{seed}"


def _facts(line: Line) -> dict[str, float]:
    """Return what a student is, whatever its seed: parameters, and pieces of 1,000 characters."""
    folder = line.folder("04-student")
    texts = list(_held_out(line))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    pieces = sum(len(e.ids) - 2 for e in tokenizer.encode_batch(texts))
    characters = sum(map(len, texts))
    return {
        "parameters": int(_training(line)["parameters"]),
        "pieces_per_1000": round(1000 * pieces / characters, 1),
    }


def _held_out(line: Line) -> Iterator[str]:
    lines = read_lines(line.folder("01-corpus") / "valid.txt")
    yield from (normalize_text(t) for _, t in zip(range(_SAMPLE), lines, strict=False))


def _training(line: Line) -> dict[str, Any]:
    return _read(line.folder("04-student") / "training.json")


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _report(config: CompareConfig, results: Mapping[str, Any]) -> None:
    """Write table and picture of the cells that the configuration asks for as it stands."""
    current: dict[str, Any] = {}
    for student in config.students:
        row = results.get(student.name)
        if row is None:
            continue
        wanted = {t.name: _identity(config, student, t) for t in _tasks(config, student)}
        seeds = {}
        for seed in map(str, student.seeds):
            cells = row["seeds"].get(seed, {"tasks": {}})["tasks"]
            seeds[seed] = {
                "tasks": {n: c for n, c in cells.items() if c["identity"] == wanted.get(n)}
            }
        current[student.name] = {"facts": row["facts"], "seeds": seeds}
    teacher = config.students[0].name
    columns = {t.name: (t.heading or t.name, t.score) for t in config.tasks}
    if config.table:
        insert(Path(config.table), "comparison", comparison_table(current, teacher, columns))
    if config.plot:
        plot_comparison(current, teacher, columns, Path(config.plot))
