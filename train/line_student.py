"""The stage of the line that distils a student, or pretrains one."""

import logging
from pathlib import Path

from .batches import Texts
from .checkpoint import has_state, write_checkpoint
from .config import DistilConfig, StudentConfig
from .distil import distil
from .folders import Line, fingerprint_source
from .line_start import join_models, load_teacher, start_student
from .loop import Schedule
from .provenance import provenance
from .recipe import Recipe
from .report import plot_run
from .stage import Stage, fields_of, fingerprint_stage, run_stage

logger = logging.getLogger(__name__)


def train_student(line: Line) -> None:
    """Run the distillation stage (or pretraining, without a teacher)."""
    c = line.config
    if c.sentence is not None and c.sentence.source:
        logger.info("%s: not needed, sentence.source is given", line.folder("04-student"))
        return
    stage = Stage(
        line.folder("04-student"),
        {"student": c.student.model_dump(), "distil": c.distil.model_dump()},
        {
            "shards": fingerprint_stage(line.folder("03-shards")),
            "teacher": fingerprint_source(line.teacher, c.teacher.revision),
        },
        resumable=True,
        defaults={"student": StudentConfig.defaults(), "distil": DistilConfig.defaults()},
    )

    def work(out: Path) -> None:
        folder = line.folder("02-vocabulary")
        teacher = load_teacher(line)
        student = start_student(line, teacher, resumed=has_state(out / "state"))
        result = distil(
            join_models(line, student, teacher),
            Texts.open(line.folder("03-shards"), "train"),
            Texts.open(line.folder("03-shards"), "valid"),
            recipe=Recipe(**fields_of(c.distil.model_dump(), Recipe)),
            schedule=Schedule(**fields_of(c.distil.model_dump(), Schedule)),
            out=out,
        )
        write_checkpoint(out, student, folder, provenance=provenance(line, result, student))
        if c.distil.steps:
            plot_run(out / "metrics.jsonl", out / "loss.png")

    run_stage(stage, work, force=line.force)
