"""The stage of the line that teaches a student sentence vectors."""

import json
import logging
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from rubert_lite.errors import ConfigError

from .axes import copy_map, nearest_rotation, write_axes, write_rotation
from .batches import Texts
from .checkpoint import write_checkpoint
from .config import DistilConfig
from .corpus import expand
from .encoders import MAP, ROTATION
from .folders import Line, fingerprint_source
from .former import FormerAxes, check_fits, open_former, tell_what_is_lost
from .graded import GradedPairs
from .items import Items
from .labels import LabelledTexts
from .learnt_axes import AxesLearning
from .lexical import LexicalLearning
from .lexical_axes import Lexical
from .line_start import join_models, load_teacher, piece_counts, vocabularies
from .line_vectors import open_targets
from .loading import load_masked_lm, start_head
from .loop import Schedule
from .pooled import piece_lists
from .provenance import add_sentence_stage, read_training, teacher_names, trained_length
from .recipe import Recipe
from .report import plot_run
from .rows import learn_only
from .sentence import distil_sentences
from .sentence_config import SentenceConfig
from .sentence_recipe import Language, Sentences, Sources
from .stage import Stage, fields_of, fingerprint_files, fingerprint_stage, run_stage
from .student import hidden_size, repeat_positions
from .tasks import Task
from .transfer import change_pieces, mix_weights, shapes

logger = logging.getLogger(__name__)

_SAMPLE = 40_000  # texts that tell what the axes leave out, at most


def train_sentence(line: Line) -> None:
    """Run the sentence stage, if the configuration has one."""
    c = line.config.sentence
    if c is None:
        return
    source = Path(c.source) if c.source else line.folder("04-student")
    inputs = {
        "vectors": fingerprint_stage(line.folder("05-vectors")),
        "items": fingerprint_stage(line.folder("05-items")),
        "student": fingerprint_source(c.source) if c.source else fingerprint_stage(source),
    }
    if c.language:
        inputs["shards"] = fingerprint_stage(line.folder("03-shards"))
        if c.language_teacher:
            inputs["teacher"] = fingerprint_source(line.teacher, line.config.teacher.revision)
    if c.tasks:
        inputs["tasks"] = fingerprint_files([t.train for t in c.tasks], whole=True)
    elsewhere = {"teacher", "teacher_name", "teacher_beside", "sources", "exclude", "cache"}
    elsewhere |= {"plain_teacher", "plain_beside", "plain_fitted", "plain_share", "student_beside"}
    elsewhere |= {"source", "mix", "directory", "items", "former_axes"}
    if c.mix:
        inputs["mix"] = " ".join(f"{m.share:g} {fingerprint_source(m.checkpoint)}" for m in c.mix)
    if c.former_axes:
        inputs["former_axes"] = fingerprint_source(c.former_axes)
    settings = c.model_dump(exclude=elsewhere)
    defaults = {k: v for k, v in c.defaults().items() if k not in elsewhere}
    stage = Stage(
        line.folder("05-sentence"),
        settings | {"distil": line.config.distil.model_dump() if c.language else {}},
        inputs,
        resumable=True,
        defaults=defaults | {"distil": DistilConfig.defaults() if c.language else {}},
    )

    def work(out: Path) -> None:
        student = _learns_on(line, source) if c.source else load_masked_lm(source)
        tell_what_is_lost(
            source,
            projection=c.projection,
            lexical=c.lexical is not None,
            only_rows=bool(c.only_rows),
        )
        data, targets = line.folder("05-items"), open_targets(line)
        tokenizer = Tokenizer.from_file(str(data / "tokenizer.json"))
        pad_id = tokenizer.token_to_id("[PAD]")
        values = c.model_dump() | {"prefixes": tuple(c.prefixes)}
        sources = _sentence_sources(line, c, tokenizer)
        spoken = c.language and c.language_teacher
        teacher = load_teacher(line) if spoken else None
        if teacher is not None:
            _comparable_states(line, student, teacher)
        items = Items.open(data, "train", targets, pad_id=pad_id)
        if c.source and c.projection == "rotation" and not (out / ROTATION).exists():
            _keep_space(line, source, out, student, items)

        former = _former_axes(line, items, out, hidden_size(student))
        kept = [(_learns_on(line, Path(m.checkpoint)), m.share) for m in c.mix]
        _same_shape(student, kept, c)
        pieces = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
        if c.only_rows:
            beside = None if former is None else former.pieces
            count = learn_only(student, beside, pieces, c.only_rows)
            logger.info("%d of %d rows learn, and nothing else", count, len(pieces))

        result = distil_sentences(
            join_models(line, student, teacher),
            items,
            Items.open(data, "valid", targets, pad_id=pad_id),
            sources,
            sentences=Sentences(**fields_of(values, Sentences)),
            schedule=Schedule(**fields_of(values, Schedule)),
            out=out,
            former=former,
            finish=partial(mix_weights, kept=kept) if kept else None,
        )
        if former is not None and not c.sort_dimensions:
            chosen = np.random.default_rng(c.seed).permutation(len(items))[:_SAMPLE]
            read = piece_lists(items, chosen) if c.remainder else []
            former.write(out, remainder=c.remainder, student=student, texts=read)
        elif c.sort_dimensions:
            # Plain text is more like what users have than the pairs are.
            texts = sources.language.texts if sources.language else items
            result |= write_axes(
                student,
                texts,
                items,
                out,
                seed=c.seed,
                learning=AxesLearning(**c.axes.model_dump()) if c.axes else None,
                graded=sources.graded if c.axes and c.axes.grades else None,
                prefixes=c.prefixes,
                lexical=_lexical(c, pieces),
            )
        training = read_training(source)
        length = trained_length(line, training, source)
        repeat_positions(student, length)
        training["trained_length"] = length
        add_sentence_stage(line, training, result, sources, student)
        tokenizer_at = line.folder("02-vocabulary") if c.new_pieces else source
        write_checkpoint(out, student, tokenizer_at, provenance=training)
        if c.steps:
            plot_run(out / "metrics.jsonl", out / "loss.png")

    run_stage(stage, work, force=line.force)


def _lexical(c: SentenceConfig, pieces: list[str]) -> Lexical | None:
    if c.lexical is None:
        return None
    return Lexical(LexicalLearning(**c.lexical.model_dump()), pieces)


def _former_axes(line: Line, items: Items, out: Path, width: int) -> FormerAxes | None:
    """Open the axes that the student is to learn behind, if any, for a teacher of the same width.

    Where dimensions are sorted at the end, former axes go before those.
    """
    c = line.config.sentence
    assert c is not None
    if c.former_axes and c.sort_dimensions:
        copy_map(Path(c.former_axes), out, width)
    if c.projection != "axes":
        return None
    own = json.loads((line.folder("05-items") / "tokenizer.json").read_text(encoding="utf-8"))
    former = open_former(Path(c.former_axes), own, width)
    check_fits(
        former,
        c.former_axes,
        teachers=items.targets.width,
        prefixes=c.prefixes,
        remainder=c.remainder,
    )
    return former


def _same_shape(
    student: torch.nn.Module, kept: list[tuple[torch.nn.Module, float]], c: SentenceConfig
) -> None:
    own = shapes(student)
    problems = [
        f"sentence.mix: {m.checkpoint} is of another shape than {c.source}: expected equal layers,"
        " widths and positions"
        for m, (model, _) in zip(c.mix, kept, strict=True)
        if shapes(model) != own
    ]
    if problems:
        raise ConfigError(problems)


def _comparable_states(line: Line, student: torch.nn.Module, teacher: torch.nn.Module) -> None:
    """Refuse to compare states of unlike widths: only the distillation stage maps them."""
    c = line.config.distil
    widths = hidden_size(student), hidden_size(teacher)
    if (c.hidden or c.contrastive) and widths[0] != widths[1]:
        raise ConfigError(
            [
                f"sentence.language with distil.hidden or distil.contrastive: the student is"
                f" {widths[0]} wide, its teacher {widths[1]}: set both to 0 for the sentence stage,"
                " or sentence.language_teacher = false"
            ]
        )


def _learns_on(line: Line, source: Path) -> torch.nn.Module:
    """Load what the sentence stage goes on from."""
    c = line.config.sentence
    assert c is not None
    student = load_masked_lm(source, headless=True)
    former, own = (
        json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        for folder in (source, line.folder("02-vocabulary"))
    )
    if former["model"]["vocab"] != own["model"]["vocab"]:
        if not c.new_pieces:
            raise ConfigError(
                [
                    f"{source} has other pieces than the line: set vocabulary.method ="
                    f' "full" and vocabulary.tokenizer = "{source}" to keep them, or'
                    " sentence.new_pieces = true to give it those of the line"
                ]
            )
        change_pieces(student, former, own)
    if c.language and c.steps:  # else it would be written as one that has learnt
        start_head(student)
    return student


def _keep_space(
    line: Line, source: Path, out: Path, student: torch.nn.Module, items: Items
) -> None:
    """Let a student that learns on keep to the space it is in: the rotation that it learnt by.

    A package has none: it is found by what the student says; so is one for other teachers than it
    had, among their principal axes, or for evened ones. One that learnt behind a map is in another
    space than its rotation tells; one that was never taught sentences is in none.
    """
    c = line.config.sentence
    assert c is not None
    turned = source / ROTATION
    former = read_training(source)["config"].get("sentence")
    others = bool(former) and teacher_names(former) != teacher_names(c.model_dump())
    evened = bool(former) and former.get("whitening", 0.0) != c.whitening
    if others or evened or (source / MAP).is_file() or not turned.is_file():
        if former:
            logger.info("%s: its rotation is found by what it says", source)
            found = nearest_rotation(
                student, items, seed=c.seed, principal=others, whitening=c.whitening
            )
            write_rotation(found, out)
        return
    given, shape = np.load(turned).shape, (items.targets.width, hidden_size(student))
    if given != shape:
        raise ConfigError(
            [
                f"{turned}: turns {given[0]} to {given[1]} dimensions, expected {shape[0]} to"
                f" {shape[1]}: learn on from the same teachers, or with another projection"
            ]
        )
    shutil.copyfile(turned, out / ROTATION)


def _sentence_sources(line: Line, c: SentenceConfig, tokenizer: Tokenizer) -> Sources:
    """Open what the sentence stage reads besides the pairs."""
    language = labelled = graded = None
    if c.language:
        shards = line.folder("03-shards")
        language = Language(
            Texts.open(shards, "train"),
            Texts.open(shards, "valid") if c.steps else None,
            Recipe(**fields_of(line.config.distil.model_dump(), Recipe)),
            piece_counts(shards, len(vocabularies(line)[2])) if c.bag else None,
        )
    held_out = expand(c.exclude, "sentence.exclude")
    tasks = [Task(dev="", metric="accuracy", **t.model_dump(exclude={"license"})) for t in c.tasks]
    if c.labels:
        single = [t for t in tasks if not t.pair]
        labelled = LabelledTexts.read(single, tokenizer, exclude=held_out, max_length=c.max_length)
    if c.grades or (c.axes and c.axes.grades):
        pairs = [t for t in tasks if t.pair]
        graded = GradedPairs.read(pairs, tokenizer, exclude=held_out, max_length=c.max_length)
    return Sources(language, labelled, graded)
