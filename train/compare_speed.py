"""Time the students of a comparison: one of each shape, for time does not depend on weights."""

import logging
from itertools import islice
from pathlib import Path

from rubert_lite import Model
from rubert_lite.errors import InputError, RubertLiteError

from .compare import held_out, report, shape_of
from .compared import CompareConfig, ComparedStudent, line_of
from .config import LineConfig
from .folders import Line
from .line import run_line
from .parallel import locked
from .results import read_results, write_json
from .speed import exported, milliseconds

logger = logging.getLogger(__name__)

_TEXTS = 1000  # held-out ones


def measure_speed(config: CompareConfig) -> None:
    """Add to every row with a result the milliseconds of a text, one thread, int8.

    Of each shape the first student that lies there trained is timed; where none does, one is made
    with random weights.
    """
    path = Path(config.results)
    shapes: dict[str, list[ComparedStudent]] = {}
    for student in config.students:
        if student.name in read_results(path):
            shape = shape_of(line_of(config, student, student.seeds[0]))
            shapes.setdefault(shape, []).append(student)
    models: dict[str, Model] = {}
    texts: list[str] = []
    for shape, students in shapes.items():
        try:
            line = _line(config, students, shape)
            models[shape] = exported(line.folder("04-student"), line.folder("package-timed"))
        except RubertLiteError as error:
            logger.warning("%s: not timed: %s", students[0].name, error)
            continue
        texts = texts or list(islice(held_out(line.folder("01-corpus")), _TEXTS))
    found = milliseconds(models, texts)
    with locked(path):
        results = read_results(path)
        for shape, value in found.items():
            for student in shapes[shape]:
                results[student.name]["facts"] |= {"ms": value, "shape": shape}
        write_json(path, results)
    report(config)


def _line(config: CompareConfig, students: list[ComparedStudent], shape: str) -> Line:
    """Return the line of a trained student of a shape, or of a random one that is made now."""
    lines = [line_of(config, s, s.seeds[0]) for s in students]
    for line in lines:
        if (line.folder("04-student") / "training.json").is_file():
            return line
    given = lines[0].config.teacher.config
    if given and not (lines[0].teacher_line().folder("04-student") / "training.json").is_file():
        raise InputError(
            f"no student of its shape lies there, and no teacher ({given}) to make one"
        )
    settings = lines[0].config.model_dump()
    settings["run"] = f"{config.run}/untrained-{shape}"
    settings["student"] |= {"initial_rows": "random", "initial_layers": "random", "cut": "topleft"}
    settings["distil"] |= {"alignment": "none", "hidden": 0.0, "span": 0.0, "mlm": 1.0, "steps": 0}
    untrained = Line(LineConfig.model_validate(settings))
    run_line(untrained, ["corpus", "vocabulary", "shards", "distil"])
    return untrained
