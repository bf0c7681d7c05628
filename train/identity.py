"""What a cell of a comparison follows from, and which cells can stand in one table.

The identity of a cell is what it was asked to be; `made_from`, in the results, is what was there
when it was made: a corpus that mended code wrote, or a teacher trained again, is another one.
"""

import json
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from rubert_lite import __version__
from rubert_lite.errors import InputError

from .compared import CompareConfig, ComparedStudent, ComparedTask, line_of, tasks_of
from .corpus import expand
from .folders import UNKNOWN, Line, fingerprint_source, fingerprint_weights
from .stage import fingerprint_files

MARK = " †"  # after the name of a row whose teacher is another training of the same settings


def cell_identity(config: CompareConfig, student: ComparedStudent, task: ComparedTask) -> str:
    """Identify what a cell follows from, but for the seed: settings, teachers, texts, version."""
    line = line_of(config, student, 0)
    parts: dict[str, Any] = {
        "line": _followed(line),
        "task": task.tuning(given=True),
        "data": fingerprint_files([task.train, task.dev], whole=True),
        "version": __version__,
    }
    if student.tuning:
        parts["tuning"] = student.tuning
    if student.soft or student.words:
        parts |= {"soft": student.soft, "words": student.words}
        parts["teacher"] = cell_identity(config, config.students[0], task)
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


def current_cells(config: CompareConfig, results: Mapping[str, Any]) -> dict[str, Any]:
    """Select from results the cells that the configuration asks for as it stands."""
    current: dict[str, Any] = {}
    for student in config.students:
        row = results.get(student.name)
        if row is None:
            continue
        wanted = {
            t.name: cell_identity(config, student, t)
            for t in tasks_of(config, student, student.seeds[0])
        }
        seeds = {}
        for seed in map(str, student.seeds):
            found = row["seeds"].get(seed, {"tasks": {}})
            tasks = {n: c for n, c in found["tasks"].items() if c["identity"] == wanted.get(n)}
            # Cells had no measures of their own once: the seed had those of the last student.
            measured = [c.get("distil", found.get("distil", {})) for c in tasks.values()]
            seeds[seed] = {"tasks": tasks} | ({"distil": measured[0]} if measured else {})
        current[student.name] = {"facts": row["facts"], "seeds": seeds}
    return current


def text_read(line: Line) -> str:
    """Identify the corpus as it lies there, by all of its bytes."""
    files = sorted(line.folder("01-corpus").glob("*.txt"))
    return fingerprint_files(map(str, files), whole=True)


def teacher_weights(config: CompareConfig) -> str:
    """Identify the weights of the comparison's teacher as they lie there."""
    first = config.students[0]
    return fingerprint_weights(line_of(config, first, first.seeds[0]).folder("04-student"))


def check_text(current: Mapping[str, Any], text: str, results: Path) -> None:
    """Raise InputError where cells that would share a table with a new one read other text."""
    others = sorted(
        f"{name}, seed {seed}"
        for name, row in current.items()
        for seed, found in row["seeds"].items()
        if any(_made(cell, "text") != text for cell in found["tasks"].values())
    )
    if others:
        raise InputError(
            f"{results}: {len(others)} students and seeds read other text than the corpus that lies"
            f" there now ({others[0]}, ...), or it is not on record what they read: a row of this"
            " corpus cannot be compared with them. Fill another file (--set results=PATH), or put"
            " back the corpus that they read"
        )


def mark_teachers(current: Mapping[str, Any], teacher: str) -> dict[str, Any]:
    """Add MARK to the names of rows that were taught by another training than the rest.

    The teacher's own row tells which is which; without it, what taught most rows.
    """
    taught = {
        name: {_made(c, "teacher") for s in row["seeds"].values() for c in s["tasks"].values()}
        for name, row in current.items()
    }
    known = taught.get(teacher) or {
        t for t, _ in Counter(t for found in taught.values() for t in found).most_common(1)
    }
    return {
        name if taught[name] <= known else f"{name}{MARK}": row for name, row in current.items()
    }


def _made(cell: Mapping[str, Any], part: str) -> str:
    return str(cell.get("made_from", {}).get(part, UNKNOWN))
