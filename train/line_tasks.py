"""The stage that gives an encoder a task."""

import json
from pathlib import Path

from .config import FinetuneConfig
from .finetune import Tuning, finetune
from .folders import Line, fingerprint_source
from .heads import Answers, Classes, Entities
from .labelled import Keys, read_asked, read_labelled, read_tagged
from .stage import Stage, fields_of, fingerprint_files, fingerprint_stage, run_stage


def finetune_head(line: Line) -> None:
    """Run the finetune stage, if the configuration has one."""
    c = line.config.finetune
    if c is None:
        return
    source = line.folder("05-sentence" if line.config.sentence else "04-student")
    stage = Stage(
        line.folder(f"06-{c.name}"),
        c.model_dump(),
        {
            "student": fingerprint_stage(source),
            "data": fingerprint_files([c.train, c.dev]),
            "soft": fingerprint_source(c.soft),
        },
    )

    def work(out: Path) -> None:
        kind = _kind(c)
        tuning = Tuning(**fields_of(c.model_dump(), Tuning))
        soft = Path(c.soft) if c.soft else None
        scores = finetune(source, kind, tuning=tuning, out=out, soft=soft)
        training = json.loads((out / "training.json").read_text(encoding="utf-8"))
        training["corpora"].append(
            {"name": c.name, "license": c.license, "texts": len(kind.data.train), "use": "labels"}
        )
        training["metrics"] = {**training["metrics"], c.name: scores}
        text = json.dumps(training, ensure_ascii=False, indent=1)
        (out / "training.json").write_text(text + "\n", encoding="utf-8")

    run_stage(stage, work, force=line.force)


def _kind(c: FinetuneConfig) -> Classes | Entities | Answers:
    train, dev = Path(c.train), Path(c.dev)
    if c.task == "token-classification":
        return Entities(read_tagged(train, dev))
    if c.task == "question-answering":
        return Answers(read_asked(train, dev))
    data = read_labelled(train, dev, keys=Keys(c.text, c.pair, c.label), names=c.labels)
    return Classes(data, c.balance)
