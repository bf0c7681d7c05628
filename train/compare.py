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
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tqdm import tqdm

from rubert_lite.errors import InputError
from rubert_lite.normalize import normalize_text

from .compared import CompareConfig, ComparedStudent, ComparedTask, line_of, rows_of, tasks_of
from .comparison import comparison_table, plot_comparison, plot_decisive
from .config import LineConfig
from .folders import Line
from .identity import (
    cell_identity,
    check_text,
    current_cells,
    mark_teachers,
    teacher_weights,
    text_read,
)
from .line import run_line
from .line_tasks import finetune_head, learn_task_words
from .pairs import read_lines
from .parallel import locked, run_rows
from .results import insert, read_results, write_json

logger = logging.getLogger(__name__)

_BEFORE = ("corpus", "vocabulary", "shards", "distil")
_CELL = "cell.json"  # in a tuned folder: the identity of the cell that it was made for
_SAMPLE = 20_000  # held-out texts that pieces are counted on


def compare(
    config: CompareConfig,
    *,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    tasks: Sequence[str] = (),
    force: bool = False,
) -> None:
    """Compute missing cells, `only` of these students, of these seeds and tasks; write the table.

    `force` computes them all anew, and makes anew the stages that differ.
    """
    path = Path(config.results)
    rows = rows_of(config, only, seeds)
    work = [(s, seed, t) for s, seed in rows for t in tasks_of(config, s, seed, tasks)]
    bar = tqdm(total=len(work), desc="compare", unit="cell", disable=None)
    for student, seed, task in work:
        bar.set_postfix_str(f"{student.name}, seed {seed}: {task.name}")
        line = line_of(config, student, seed, force=force)
        # Another process that is asked for this cell, too, finds it done
        with locked(line.folder(f"cell-{task.name}")):
            identity = cell_identity(config, student, task)
            done = read_results(path).get(student.name, {}).get("seeds", {}).get(str(seed), {})
            if force or done.get("tasks", {}).get(task.name, {}).get("identity") != identity:
                _compute(config, student, seed, task, line, identity)
        bar.update()
    bar.close()
    report(config)


def _compute(
    config: CompareConfig,
    student: ComparedStudent,
    seed: int,
    task: ComparedTask,
    line: Line,
    identity: str,
) -> None:
    """Make a student, unless it is there, tune it on a task, and write what it scores."""
    path = Path(config.results)
    knows = _tuned_teacher(config, task)
    if student.soft or student.words:
        _check_teacher(config, student, task, knows)
    run_line(line, _BEFORE[:1])  # before an hour is spent on what cannot stand beside the rest
    text = text_read(line)
    check_text(current_cells(config, read_results(path)), text, path)
    run_line(line, _BEFORE)
    made = _training(line)
    # What taught it, not what lies there now: the teacher may have been trained again.
    origin = {"text": text, "teacher": made.get("teacher_weights") or teacher_weights(config)}
    metrics = made["metrics"]
    started = time.perf_counter()
    scores = _tune(config, student, seed, task, line, identity)
    seconds = round(time.perf_counter() - started, 1)
    with locked(path):  # other processes fill in other rows
        results = read_results(path)
        row = results.setdefault(student.name, {"seeds": {}})
        if row.get("facts", {}).get("shape") != shape_of(line):  # else nothing has changed
            row["facts"] = _facts(line)
        cells = row["seeds"].setdefault(str(seed), {"tasks": {}})
        about = {"identity": identity, "made_from": origin, "seconds": seconds}
        about |= {"distil": metrics}  # of this student: other settings make another one
        cells["tasks"][task.name] = about | scores
        write_json(path, results)
    report(config, wait=False)


def _check_teacher(
    config: CompareConfig, student: ComparedStudent, task: ComparedTask, knows: Path
) -> None:
    """Refuse a tuned teacher that is not there, or that other settings or texts made."""
    teacher = config.students[0]
    made = _read(knows / _CELL)["identity"] if (knows / _CELL).is_file() else ""
    if made != cell_identity(config, teacher, task):
        state = "was made by other settings" if made else "is not there"
        raise InputError(
            f"{student.name}: learns from the teacher tuned on {task.name}, and {knows} {state}:"
            f" run --only {teacher.name!r} --task {task.name} first, with --force if it has a score"
        )


def compare_at_once(
    config: CompareConfig,
    command: Sequence[str],
    *,
    jobs: int,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    force: bool = False,
) -> None:
    """Do the same in `jobs` processes of `command`, a student and seed each, the teacher's first.

    What several students share, such as shards, is made before they begin.
    """
    rows = rows_of(config, only, seeds)
    words = {f"{s.name}, seed {seed}": ["--only", s.name, "--seed", str(seed)] for s, seed in rows}
    taught = [name for name, (s, _) in zip(words, rows, strict=True) if s is config.students[0]]
    run_rows(command, {name: words.pop(name) for name in taught}, jobs=1)
    for student, seed in rows:
        run_line(line_of(config, student, seed, force=force), _BEFORE[:-1])
    run_rows(command, words, jobs=jobs)


def _tune(
    config: CompareConfig,
    student: ComparedStudent,
    seed: int,
    task: ComparedTask,
    line: Line,
    identity: str,
) -> dict[str, float]:
    teacher = config.students[0]
    knows = _tuned_teacher(config, task)
    settings = task.tuning()
    name = f"{task.name}-{seed}"
    if student.like:  # the folder is another row's, too
        name += f"-{student.name.replace(' ', '-')}"
    settings |= student.tuning | {"name": name, "seed": seed}
    if student.soft:
        settings["soft"] = str(knows)
    words = line.folder(f"05-words-{name}")
    if student.words:
        learn_task_words(line, task, words, teacher=knows, steps=student.words)
        settings["source"] = str(words)
    tuned = Line(
        LineConfig.model_validate(line.config.model_dump() | {"finetune": settings}), force=True
    )
    folder = tuned.folder(f"06-{name}")
    if folder.is_dir():  # a cell that is computed is computed, also from equal settings
        shutil.rmtree(folder)
    finetune_head(tuned)
    write_json(folder / _CELL, {"identity": identity})
    scores: dict[str, float] = _read(folder / "training.json")["metrics"][name]
    if not (student.keep or student is teacher):
        shutil.rmtree(folder)  # its scores are what is wanted
        shutil.rmtree(words, ignore_errors=True)
    return scores


def _tuned_teacher(config: CompareConfig, task: ComparedTask) -> Path:
    teacher = config.students[0]
    first = teacher.seeds[0]
    return line_of(config, teacher, first).folder(f"06-{task.name}-{first}")


def shape_of(line: Line) -> str:
    """Identify what a student's size and time depend on: its body and pieces, not its weights."""
    body = {"layers", "hidden_size", "heads", "ffn_size", "max_length", "architecture"}
    settings = {
        "student": line.config.student.model_dump(include=body),
        "vocabulary": line.config.vocabulary.model_dump(),
    }
    return sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _facts(line: Line) -> dict[str, Any]:
    """Return what a student is, whatever its seed: parameters, and pieces of 1,000 characters."""
    folder = line.folder("04-student")
    texts = list(islice(held_out(line.folder("01-corpus")), _SAMPLE))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    pieces = sum(len(e.ids) - 2 for e in tokenizer.encode_batch(texts))
    characters = sum(map(len, texts))
    return {
        "shape": shape_of(line),
        "parameters": int(_training(line)["parameters"]),
        "pieces_per_1000": round(1000 * pieces / max(characters, 1), 1),
    }


def held_out(corpus: Path) -> Iterator[str]:
    """Yield the held-out texts of a corpus as the runtime would read them."""
    return map(normalize_text, read_lines(corpus / "valid.txt"))


def _training(line: Line) -> dict[str, Any]:
    return _read(line.folder("04-student") / "training.json")


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def report(config: CompareConfig, *, wait: bool = True) -> None:
    """Write table and picture of the cells that the configuration asks for as it stands.

    That takes seconds, in which others may write cells. While another process is at it this one
    goes on where `wait` is off: every comparison ends with a report.
    """
    path = Path(config.results)
    with locked(path.with_name(f"{path.name}.report"), wait=wait) as mine:
        if mine:
            _write_report(config, read_results(path))


def _write_report(config: CompareConfig, results: Mapping[str, Any]) -> None:
    teacher = config.students[0].name
    current = mark_teachers(current_cells(config, results), teacher)
    columns = {t.name: (t.heading or t.name, t.score) for t in config.tasks}
    counted = {t.name: columns[t.name] for t in config.tasks if t.counted and not t.aside}
    if config.table:
        lines = comparison_table(
            current, teacher, columns, counted, measures=config.measures, sizes=config.sizes
        )
        insert(Path(config.table), config.table_name, lines)
    if config.plot:
        plot_comparison(current, teacher, counted, Path(config.plot))
    if config.decisive and config.decisive_plot:
        told = {name: columns[name] for name in config.decisive}
        plot_decisive(current, told, Path(config.decisive_plot))
