"""The command `rubert-lite train STAGE --config F.toml`."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError

from rubert_lite.errors import ConfigError, RubertLiteError

from .config import load_config
from .missing import missing_files
from .parallel import as_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run stages of a training line; return the exit status."""
    from .compare import compare, compare_at_once
    from .compare_speed import measure_speed
    from .compared import load_comparison
    from .evaluate import evaluate
    from .evaluated import load_evaluation
    from .folders import Line
    from .line import STAGES, run_line

    parser = argparse.ArgumentParser(
        prog="rubert-lite train",
        description="Distil a Russian BERT into a small-vocabulary student.",
    )
    parser.add_argument(
        "stage",
        choices=["all", *STAGES, "evaluate", "compare"],
        help="a stage, or all of them in order; evaluate and compare have configurations of their"
        " own",
    )
    parser.add_argument("--config", required=True, type=Path, help="TOML file of the line")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override, e.g. student.layers=4",
    )
    parser.add_argument(
        "--until", metavar="STAGE", choices=list(STAGES), help="all: the last stage that is run"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="compare: this student"
    )
    parser.add_argument(
        "--seed", action="append", default=[], type=int, metavar="N", help="compare: this seed"
    )
    parser.add_argument(
        "--task", action="append", default=[], metavar="NAME", help="compare: this task"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="compare: students at once (default 1)"
    )
    parser.add_argument(
        "--speed", action="store_true", help="compare: only time the students that there are"
    )
    parser.add_argument("--check", action="store_true", help="check the configuration and stop")
    parser.add_argument("--force", action="store_true", help="make stages again that differ")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        if arguments.stage == "evaluate":
            judged = load_evaluation(arguments.config, arguments.set)
            if not arguments.check:
                evaluate(judged, force=arguments.force)
            return 0
        if arguments.stage == "compare":
            compared = load_comparison(arguments.config, arguments.set)
            if arguments.check:
                return 0
            if arguments.speed and (
                arguments.only
                or arguments.seed
                or arguments.task
                or arguments.force
                or arguments.jobs > 1
            ):
                parser.error("--speed times all students that there are: give it alone")
            if arguments.speed:
                measure_speed(compared)
            elif arguments.jobs > 1:
                compare_at_once(
                    compared,
                    _again(arguments),
                    jobs=arguments.jobs,
                    only=arguments.only,
                    seeds=arguments.seed,
                    force=arguments.force,
                )
            else:
                compare(
                    compared,
                    only=arguments.only,
                    seeds=arguments.seed,
                    tasks=arguments.task,
                    force=arguments.force,
                )
            return 0
        line = Line(load_config(arguments.config, arguments.set), arguments.force)
        if line.config.teacher.config:
            line.teacher_line()
        if arguments.check:
            absent = missing_files(line.config)
            told = "".join(f"\n  {what}" for what in absent)
            note = f"; not there yet, seen from {Path.cwd()}:{told}" if absent else ""
            print(f"{arguments.config}: fine{note}", file=sys.stderr)
            return 0
        names = [arguments.stage]
        if arguments.stage == "all":
            names = list(STAGES)
            if arguments.until:
                names = names[: names.index(arguments.until) + 1]
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(
                [
                    "started as several processes: a stage is made by one; to train on several"
                    " GPUs call train.distil.distil or train.sentence.distil_sentences from a"
                    " script of your own"
                ]
            )
        run_line(line, names)
    except RubertLiteError as error:
        print(f"rubert-lite train: {error}", file=sys.stderr)
        return 1
    except (OSError, SafetensorError) as error:  # such as a full disk
        print(f"rubert-lite train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rubert-lite train: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _again(arguments: argparse.Namespace) -> list[str]:
    """Return the command of a process that does what this one was asked, but for the students."""
    words = [*as_command("train"), "compare", "--config", str(arguments.config)]
    for override in arguments.set:
        words += ["--set", override]
    for task in arguments.task:
        words += ["--task", task]
    return [*words, *(["--force"] if arguments.force else [])]


if __name__ == "__main__":
    sys.exit(main())
