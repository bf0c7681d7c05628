"""Which settings of a training line contradict each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .labelled import SCORES
from .sentence_config import SentenceConfig

if TYPE_CHECKING:
    from .config import LineConfig


def contradictions(config: LineConfig) -> list[str]:
    """List what is wrong with settings that are right each by itself, a sentence each."""
    checks = (_sources, _distil, _student, _vocabulary, _sentence, _finetune)
    return [problem for check in checks for problem in check(config)]


def _has_teacher(config: LineConfig) -> bool:
    return bool(config.teacher.path or config.teacher.config)


def _sources(config: LineConfig) -> list[str]:
    given = {"corpus": [s.name for s in config.corpus.sources]}
    if config.sentence:
        given["sentence"] = [s.name for s in config.sentence.sources]
    return [
        f"{section}.sources: {name!r} stands twice: a change of one's files would pass unseen"
        for section, names in given.items()
        for name in sorted({n for n in names if names.count(n) > 1})
    ]


def _distil(config: LineConfig) -> list[str]:
    problems = []
    teacher, distil = config.teacher, config.distil
    if teacher.path and teacher.config:
        problems.append("teacher: both path and config are given, expected one")
    taught = distil.kl + distil.hidden + distil.contrastive if distil.alignment != "none" else 0
    if not (taught or distil.mlm or distil.span):
        problems.append("distil: all weights are 0: set kl, mlm, hidden, contrastive or span")
    has_teacher = _has_teacher(config)
    if not has_teacher and distil.span:
        problems.append("distil.span needs a teacher: give teacher.path or teacher.config")
    if not has_teacher and distil.alignment != "none":
        problems.append(
            f"distil.alignment = {distil.alignment!r} needs a teacher: give teacher.path or"
            " teacher.config, or set alignment = 'none' to pretrain"
        )
    if distil.tail and config.vocabulary.method in ("prune", "map"):
        problems.append(
            f"distil.tail with vocabulary.method = {config.vocabulary.method!r}: all pieces of the"
            " student are shared, none is outside: its KL would be infinite"
        )
    if distil.tail and distil.alignment == "reduce-map":
        problems.append(
            "distil.tail with alignment = 'reduce-map': it compares all classes: leave it out"
        )
    if distil.span and distil.mask_exponent:
        problems.append(
            "distil.mask_exponent with span: words are masked then, all alike: leave it out"
        )
    if distil.contrastive and not distil.negatives:
        problems.append(
            "distil.negatives = 0: nothing to be told from: expected 1 or more, or -1 (all)"
        )
    if distil.compare == "masked":
        if distil.alignment not in ("match", "match-string", "plain"):
            problems.append(
                f"distil.compare = 'masked' with alignment = {distil.alignment!r}: only match,"
                " match-string and plain mask what they compare"
            )
        elif not (distil.mlm or distil.span or distil.mask_teacher):
            problems.append(
                "distil.compare = 'masked', but nothing is masked: set mlm, span or mask_teacher"
            )
    if distil.hidden_at == "words":
        if distil.alignment not in ("match", "match-string", "plain"):
            problems.append(
                f"distil.hidden_at = 'words' with alignment = {distil.alignment!r}: expected match,"
                " match-string or plain (reduce sums the parts of pieces itself)"
            )
        elif not (distil.hidden or distil.contrastive):
            problems.append(
                "distil.hidden_at = 'words' without a weight: set hidden or contrastive"
            )
    if distil.alignment.startswith("reduce"):
        if distil.mask_teacher:
            problems.append(
                f"distil.mask_teacher with alignment = {distil.alignment!r}: the student's side"
                " would not be masked: only match, match-string and plain mask both"
            )
        if config.vocabulary.lowercase:
            problems.append(
                f"distil.alignment = {distil.alignment!r} reads the teacher's pieces, of which a"
                " lower-case vocabulary lacks all capitals: expected match"
            )
    return problems


def _student(config: LineConfig) -> list[str]:
    problems = []
    start = config.student
    if "measured" in (start.initial_layers, start.cut):
        bare = start.initial_rows in ("random", "cooccurrence")
        if bare or not _has_teacher(config):
            problems.append(
                "student: initial_layers or cut = 'measured' needs a teacher and initial_rows ="
                " 'fvt', 'expected' or 'mean': without rows nothing tells its parts from each other"
            )
        if start.cut == "measured" and start.initial_layers not in ("select", "measured"):
            problems.append(
                f"student.cut = 'measured' with initial_layers = {start.initial_layers!r}:"
                " expected 'select' or 'measured'"
            )
    if config.student.hidden_size % max(config.student.heads, 1):
        problems.append(
            f"student.hidden_size = {config.student.hidden_size} is not a multiple of"
            f" student.heads = {config.student.heads}"
        )
    if config.shards.max_length > config.student.max_length:
        problems.append(
            f"shards.max_length = {config.shards.max_length} is above"
            f" student.max_length = {config.student.max_length}"
        )
    return problems


def _vocabulary(config: LineConfig) -> list[str]:
    problems = []
    if config.vocabulary.lowercase and config.vocabulary.method != "train":
        problems.append(
            "vocabulary.lowercase needs vocabulary.method = 'train': the other methods keep pieces"
            " with their case"
        )
    if not _has_teacher(config) and config.vocabulary.method == "map":
        problems.append("vocabulary.method = 'map' needs a teacher (its embeddings)")
    if config.vocabulary.pairs and config.vocabulary.method == "full":
        problems.append(
            "vocabulary.pairs with method = 'full': all pieces stay, there is no choice"
        )
    if config.vocabulary.method in ("join", "extend") and not config.vocabulary.pairs:
        problems.append(
            f"vocabulary.method = {config.vocabulary.method!r} needs vocabulary.pairs above 0:"
            " their pieces"
        )
    if config.vocabulary.new_matching and config.vocabulary.method != "extend":
        problems.append("vocabulary.new_matching chooses what is added: set method = 'extend'")
    if config.vocabulary.pairs and not config.sentence:
        problems.append(
            "vocabulary.pairs reads the pairs of [sentence], and there is no such section"
        )
    return problems


def _sentence(config: LineConfig) -> list[str]:
    sentence = config.sentence
    if sentence is None:
        return []
    problems = _unweighted(sentence)
    behind = sentence.projection == "axes"  # then vectors are as wide as there are axes
    if not behind and max(sentence.prefixes, default=1) > config.student.hidden_size:
        problems.append(
            f"sentence.prefixes = {sentence.prefixes}: above student.hidden_size ="
            f" {config.student.hidden_size}"
        )
    if min(sentence.prefixes, default=1) < 1:
        problems.append(f"sentence.prefixes = {sentence.prefixes}: expected widths of at least 1")
    if sentence.max_length > config.student.max_length:
        problems.append(
            f"sentence.max_length = {sentence.max_length} is above student.max_length ="
            f" {config.student.max_length}"
        )
    if not (sentence.regression or sentence.contrastive or sentence.similarity):
        problems.append("sentence: all of regression, contrastive and similarity are 0")
    if sentence.axes and not sentence.sort_dimensions:
        problems.append("sentence.axes: their map is written with the sorting: set sort_dimensions")
    if sentence.projection == "axes" and not sentence.former_axes:
        problems.append(
            "sentence.projection = 'axes': those of sentence.former_axes: none are given"
        )
    if sentence.former_axes and sentence.projection != "axes" and not sentence.sort_dimensions:
        problems.append("sentence.former_axes: they are part of the sorting: set sort_dimensions")
    if sentence.remainder and (sentence.projection != "axes" or sentence.sort_dimensions):
        problems.append(
            "sentence.remainder: of axes that stay: set projection = 'axes' and sort_dimensions ="
            " false"
        )
    if sentence.only_rows:
        problems += _rows_alone(sentence)
    if sentence.former_axes and sentence.projection == "map":
        problems.append(
            "sentence.former_axes with projection = 'map': it has a map of its own: leave one out"
        )
    if sentence.lexical and not sentence.axes:
        problems.append("sentence.lexical: the map of axes joins it to the vectors: set axes")
    if sentence.new_pieces and not sentence.source:
        problems.append("sentence.new_pieces changes those of sentence.source: none is given")
    if sentence.mix and not sentence.source:
        problems.append("sentence.mix keeps weights that sentence.source comes from: none is given")
    if (mixed := sum(m.share for m in sentence.mix)) >= 1:
        problems.append(
            f"sentence.mix: shares of {mixed:g} in all, expected less than 1: the rest is what the"
            " stage trained"
        )
    if sentence.bag and not sentence.language:
        problems.append("sentence.bag counts pieces of plain text: set sentence.language above 0")
    return problems


def _rows_alone(sentence: SentenceConfig) -> list[str]:
    """Tell what would move more weights than the rows, or none."""
    problems = []
    if sentence.weight_decay:
        problems.append("sentence.only_rows: a weight decay moves the others: set weight_decay = 0")
    if sentence.optimizer == "muon":
        problems.append(
            "sentence.only_rows with optimizer = 'muon', which is for the matrices that stay: take"
            " adamw"
        )
    if sentence.projection == "map":
        problems.append(
            "sentence.only_rows with projection = 'map': the map would learn, too, and change every"
            " vector: expected 'axes'"
        )
    if sentence.mix:
        problems.append("sentence.only_rows with mix, which would move every weight: leave one out")
    return problems


def _finetune(config: LineConfig) -> list[str]:
    task = config.finetune
    if task is None:
        return []
    problems = []
    if task.soft and task.balance:
        problems.append("finetune: soft labels have no classes to balance: leave one out")
    if task.task != "classification":
        idle = [name for name in ("pair", "labels", "balance") if getattr(task, name)]
        problems += [f"finetune.{name} is of classification, not of {task.task}" for name in idle]
    if task.task == "question-answering" and task.soft:
        problems.append("finetune.soft: not for question-answering: leave it out")
    if task.unlabelled and not task.soft:
        problems.append(
            "finetune.unlabelled without finetune.soft, a teacher that labels the texts"
        )
    if bool(task.unlabelled) != bool(task.unlabelled_license):
        problems.append(
            "finetune: unlabelled and unlabelled_license are given together or not at all"
        )
    scores = SCORES[task.task]
    if task.metric and task.metric not in scores:
        problems.append(f"finetune.metric = {task.metric!r}: {task.task} has {', '.join(scores)}")
    return problems


def _unweighted(sentence: SentenceConfig) -> list[str]:
    """Tell of weights without tasks and tasks without a weight."""
    kinds = {"labels": "without a pair", "grades": "with a pair"}
    given = {"labels": [t for t in sentence.tasks if not t.pair]}
    given["grades"] = [t for t in sentence.tasks if t.pair]
    ordered = sentence.axes.grades if sentence.axes else 0.0
    weights = {"labels": sentence.labels, "grades": sentence.grades or ordered}
    both = [t.name for t in sentence.tasks if t.pair and t.smileys]
    return [
        f"sentence.tasks {name!r}: smileys are labels of single texts: leave out `pair`"
        for name in both
    ] + [
        f"sentence: {name} (a weight) and tasks {kinds[name]} are given together or not at all"
        for name, tasks in given.items()
        if bool(weights[name]) != bool(tasks)
    ]
