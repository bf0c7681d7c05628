"""Labelled texts from files: classes of texts and pairs, entities, questions with answers."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from rubert_lite.errors import InputError

from .reading import read_records, read_texts, read_whole

logger = logging.getLogger(__name__)

T = TypeVar("T")

# What a model is judged by on the dev split, by task.
SCORES = {
    "classification": ("accuracy", "macro_f1", "weighted_f1", "mcc"),
    "token-classification": ("f1", "precision", "recall"),
    "question-answering": ("f1", "em"),
}


@dataclass(frozen=True)
class Example:
    """A text, or a pair of texts, and the index of its label."""

    text: str
    pair: str | None
    label: int


@dataclass(frozen=True)
class Tagged:
    """A text and its entities: (start, end, kind), in characters, in order, apart."""

    text: str
    spans: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True)
class Asked:
    """A question and the text that answers it: `context[start:end]` for each accepted answer."""

    question: str
    context: str
    answers: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Keys:
    """Where a labelled record keeps its parts; `pair` may be empty."""

    text: str = "text"
    pair: str = ""
    label: str = "label"


@dataclass(frozen=True)
class Labelled(Generic[T]):
    """The examples of both splits and the names of their labels."""

    train: Sequence[T]
    dev: Sequence[T]
    labels: tuple[str, ...]


def read_labelled(
    train: Path, dev: Path, *, keys: Keys, names: Mapping[str, str] | None = None
) -> Labelled[Example]:
    """Read two jsonl files; `names` renames labels, and several may share a name.

    Raises InputError for a record without its keys, a label that `names` or the training file
    lacks, and fewer than two labels.
    """
    names = names or {}
    raw = [(path, list(_classes(path, keys))) for path in (train, dev)]
    if names:
        for path, rows in raw:
            if unknown := {label for *_, label in rows} - set(names):
                raise InputError(
                    f"{path}: label {sorted(unknown)[0]!r} is not in finetune.labels: add it"
                )
    _need_some(dev, raw[1][1])
    labels = tuple(sorted({names.get(label, label) for *_, label in raw[0][1]}))
    if len(labels) < 2:
        raise InputError(f"{train}: {len(labels)} label(s), expected at least two")
    index = {name: i for i, name in enumerate(labels)}
    splits = []
    for path, rows in raw:
        examples = []
        for text, pair, label in rows:
            name = names.get(label, label)
            if name not in index:
                raise InputError(f"{path}: label {name!r} does not occur in {train}")
            examples.append(Example(text, pair, index[name]))
        splits.append(examples)
    return Labelled(splits[0], splits[1], labels)


def few(data: Labelled[T], limit: int) -> Labelled[T]:
    """Keep `limit` training examples, drawn from all, the same for every seed; 0 keeps all.

    What a model is worth where labels are dear. Labels that none of these bears stay labels.
    """
    if not 0 < limit < len(data.train):
        return data
    chosen = np.sort(np.random.default_rng(0).choice(len(data.train), limit, replace=False))
    return replace(data, train=[data.train[i] for i in chosen])


def _classes(path: Path, keys: Keys) -> Iterator[tuple[str, str | None, str]]:
    wanted = [k for k in (keys.text, keys.pair, keys.label) if k]
    for place, record in read_records(path):
        _need(place, record, wanted)
        for key in wanted[:-1]:
            if not isinstance(record[key], str):
                kind = type(record[key]).__name__
                raise InputError(f"{place}: {key!r} is a {kind}, expected a string")
        if type(record[keys.label]) not in (str, int) or record[keys.label] == "":
            raise InputError(
                f"{place}: label {record[keys.label]!r}: expected a string or a whole number"
            )
        pair = record[keys.pair] if keys.pair else None
        yield record[keys.text], pair, str(record[keys.label])


def read_unlabelled(path: Path, keys: Keys) -> list[tuple[str, str | None]]:
    """Read texts that bear no label: lines, or records with `keys.text`; pairs from jsonl alone.

    Empty texts are left out. Raises InputError for a broken record and a file without texts.
    """
    found: list[tuple[str, str | None]] = []
    if keys.pair:
        for place, record in read_records(path):
            _need(place, record, (keys.text, keys.pair))
            text, pair = record[keys.text], record[keys.pair]
            if not isinstance(text, str) or not isinstance(pair, str):
                raise InputError(f"{place}: expected strings {keys.text!r} and {keys.pair!r}")
            found.append((text, pair))
    else:
        for line in read_texts(path, field=keys.text):
            if line.text is None:
                raise InputError(f"{line.place}: {line.problem}")
            found.append((line.text, None))
    found = [(text, pair) for text, pair in found if text.strip()]
    if not found:
        raise InputError(f"{path}: no texts: expected some for the teacher to label")
    return found


def _need_some(path: Path, rows: Sequence[Any]) -> None:
    if not rows:
        raise InputError(f"{path}: no records: expected labelled texts to judge by")


def _need(place: str, record: Mapping[str, Any], wanted: Sequence[str]) -> None:
    missing = [k for k in wanted if k not in record]
    if missing:
        raise InputError(f"{place}: no {missing[0]!r}: the record has {', '.join(record)}")


def read_tagged(train: Path, dev: Path) -> Labelled[Tagged]:
    """Read two jsonl files of entities.

    A record has "tokens" and "tags" (O, B-X, I-X; the tokens are joined by spaces), or "text" and
    "entities": [{"start", "end", "label"}]. Labels are O and B-X, I-X of every kind in `train`.
    """
    splits = [[_tagged(place, record) for place, record in read_records(p)] for p in (train, dev)]
    _need_some(dev, splits[1])
    kinds = sorted({kind for row in splits[0] for *_, kind in row.spans})
    if not kinds:
        raise InputError(f"{train}: no entities")
    judged = {kind for row in splits[1] for *_, kind in row.spans}
    if not judged:
        raise InputError(f"{dev}: no entities: expected some to judge by")
    if unknown := judged - set(kinds):
        raise InputError(f"{dev}: entity {sorted(unknown)[0]!r} does not occur in {train}")
    labels = ("O", *(f"{mark}-{kind}" for kind in kinds for mark in "BI"))
    return Labelled(splits[0], splits[1], labels)


def _tagged(place: str, record: Mapping[str, Any]) -> Tagged:
    if "tokens" in record:
        return _from_tags(place, record)
    _need(place, record, ("text", "entities"))
    text, spans = record["text"], []
    if not isinstance(text, str) or not isinstance(record["entities"], list):
        raise InputError(f"{place}: expected a string `text` and a list `entities`")
    for entity in record["entities"]:
        given = entity if isinstance(entity, dict) else {}
        start, end, kind = (given.get(k) for k in ("start", "end", "label"))
        if type(start) is not int or type(end) is not int or not (kind and type(kind) is str):
            raise InputError(f"{place}: entities: expected numbers start and end, string label")
        spans.append((start, end, kind))
    edge = 0
    for start, end, kind in sorted(spans):
        if not edge <= start < end <= len(text):
            raise InputError(
                f"{place}: entity {kind} at {start}..{end}: outside the text of {len(text)}"
                " characters, empty, or over another one"
            )
        edge = end
    return Tagged(text, tuple(sorted(spans)))


def _from_tags(place: str, record: Mapping[str, Any]) -> Tagged:
    _need(place, record, ("tokens", "tags"))
    tokens, tags = record["tokens"], record.get("tags")
    if not isinstance(tokens, list) or not isinstance(tags, list):
        raise InputError(f"{place}: tokens and tags: expected two lists of strings")
    if len(tokens) != len(tags):
        raise InputError(f"{place}: {len(tokens)} tokens and {len(tags)} tags")
    found: list[tuple[int, int, str]] = []
    start, before = 0, ""
    for token, tag in zip(tokens, tags, strict=True):
        mark, _, kind = tag.partition("-") if isinstance(tag, str) else ("", "", "")
        if mark not in ("O", "B", "I") or bool(kind) == (mark == "O"):
            raise InputError(f"{place}: tag {tag!r}, expected O, B-X or I-X")
        if not isinstance(token, str) or (kind and not token.strip()):
            raise InputError(f"{place}: token {token!r} tagged {tag}, expected a word")
        end = start + len(token)
        if mark == "I" and before == kind:
            found[-1] = (found[-1][0], end, kind)
        elif kind:
            found.append((start, end, kind))
        start, before = end + 1, kind
    return Tagged(" ".join(tokens), tuple(found))


def read_asked(train: Path, dev: Path) -> Labelled[Asked]:
    """Read two files in SQuAD's format (JSON, may be compressed).

    An answer that does not stand where the file says is left out, and so is a question without
    any (as SQuAD 2 has them), each with a warning. Raises InputError for another format and a file
    without answered questions.
    """
    return Labelled(_asked(train), _asked(dev), ("start", "end"))


def _asked(path: Path) -> list[Asked]:
    found, misplaced, unanswered = [], 0, 0
    try:
        for article in json.loads(read_whole(path))["data"]:
            for paragraph in article["paragraphs"]:
                context = str(paragraph["context"])
                for entry in paragraph["qas"]:
                    answers = {(int(a["answer_start"]), str(a["text"])) for a in entry["answers"]}
                    places = sorted((a, a + len(t)) for a, t in answers if t)
                    right = [(a, b) for a, b in places if a >= 0 and (a, context[a:b]) in answers]
                    misplaced += len(places) - len(right)
                    unanswered += not places
                    if right:
                        found.append(Asked(str(entry["question"]), context, tuple(right)))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: not SQuAD's format: {error!r}") from error
    if misplaced:
        logger.warning("%s: %d answers do not stand where they should: left out", path, misplaced)
    if unanswered:
        logger.warning(
            "%s: %d questions without an answer are left out: nothing learns to say that there is"
            " none, and no score counts them",
            path,
            unanswered,
        )
    if not found:
        raise InputError(f"{path}: no questions with answers")
    return found
