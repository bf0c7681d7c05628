"""The straight line: from the corpus to a task, each stage a folder."""

from collections.abc import Callable, Sequence

from rubert_lite.errors import ConfigError

from .folders import Line
from .line_sentence import train_sentence
from .line_student import train_student
from .line_tasks import finetune_head
from .line_text import corpus, shards, vocabulary
from .line_vectors import items, pairs, vectors

STAGES: dict[str, Callable[[Line], None]] = {
    "corpus": corpus,
    "vocabulary": vocabulary,
    "shards": shards,
    "distil": train_student,
    "pairs": pairs,
    "vectors": vectors,
    "items": items,
    "sentence": train_sentence,
    "finetune": finetune_head,
}


def run_line(line: Line, names: Sequence[str]) -> None:
    """Run stages in order; a teacher that another configuration makes comes first, if they need it.

    A student can learn on (`sentence.source`) where its teacher's weights were not kept.
    """
    if line.config.teacher.config and any(_reads_teacher(line, n) for n in names):
        made = line.teacher_line()
        if made.config.teacher.config:
            raise ConfigError(
                [f"{line.config.teacher.config}: a teacher's line has no teacher line"]
            )
        run_line(made, ["corpus", "vocabulary", "shards", "distil"])
    for name in names:
        STAGES[name](line)


def _reads_teacher(line: Line, name: str) -> bool:
    if name == "sentence":
        c = line.config.sentence
        return c is not None and c.language > 0 and c.language_teacher
    return name in ("vocabulary", "distil")
