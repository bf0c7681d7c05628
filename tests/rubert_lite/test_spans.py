"""tag and answer: places in the text as given, windows, tasks."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rubert_lite import Entity, InputError, Model, PackageError, load
from rubert_lite.cli import main
from rubert_lite.predictions import best_span, read_entities, windows

from .conftest import HIDDEN, PIECES, TAGS, Maker, rows_of


def test_entities_have_their_places_in_the_text_as_given(tagger: Model) -> None:
    text = "\0 до\u0301брый  день, ми\u0301р!"
    (found,) = tagger.tag([text])
    assert [(e.label, e.text) for e in found] == [
        ("DAY", "до\u0301брый  день"),
        ("MAN", "ми\u0301р"),
    ]
    assert all(text[e.start : e.end] == e.text and 0.9 < e.score <= 1 for e in found)


def test_the_first_piece_speaks_for_a_word(make_package: Maker) -> None:
    rows = rows_of(**{"При": "B-MAN", "##вет": "B-DAY"})
    package = make_package(
        labels=TAGS,
        task="token-classification",
        rows=rows,
        head=np.eye(HIDDEN, 4),
        pieces=[p if p != "Привет" else "мирный" for p in PIECES],
    )
    (found,) = load(package, lanes=1).tag(["Привет, мир"])
    assert [(e.label, e.text) for e in found] == [("MAN", "Привет")]


def test_long_texts_are_read_whole(tagger: Model) -> None:
    text = ", ".join(["добрый день и мир"] * 30)  # 150 pieces, the model reads 16
    (found,) = tagger.tag([text])
    assert [e.label for e in found] == ["DAY", "MAN"] * 30
    assert {e.text for e in found} == {"добрый день", "мир"}


def test_tag_keeps_order_and_bears_nothing(tagger: Model) -> None:
    assert tagger.tag([]) == []
    assert [len(e) for e in tagger.tag(["", "мир", " ", "мир мир"])] == [0, 1, 0, 2]


@pytest.mark.parametrize("before", [0, 3, 40])
def test_answers_have_their_place_in_the_context_as_given(reader: Model, before: int) -> None:
    context = "мир, " * before + "вот до\u0301брый  день. " + "мир, " * before
    (found,) = reader.answer([("мир?", context)])
    assert found.text == "до\u0301брый  день" == context[found.start : found.end]
    assert found.score > 0.5


def test_a_question_never_answers_itself(reader: Model) -> None:
    (found,) = reader.answer([("добрый день", "мир и мир")])
    assert found.text in "мир и мир" and found.score < 0.1
    (empty,) = reader.answer([("добрый день", "")])
    assert (empty.text, empty.start, empty.end, empty.score) == ("", 0, 0, 0.0)


def test_a_long_question_leaves_room_for_the_context(reader: Model) -> None:
    (found,) = reader.answer([("мир " * 500, "вот добрый день")])
    assert found.text == "добрый день"


def test_calls_need_a_model_of_their_task(tagger: Model, reader: Model, model: Model) -> None:
    calls: list[tuple[Callable[..., object], str]] = [
        (tagger.classify, "tiny: a model for token-classification, classify needs one for"),
        (reader.tag, "tag needs one for token-classification"),
        (tagger.answer, "answer needs one for question-answering"),
        (model.tag, "a model for embedding"),
    ]
    for call, message in calls:
        with pytest.raises(InputError, match=message):
            call([])
    assert tagger.labels == () and tagger.encode(["мир"]).shape == (1, HIDDEN)


def test_answer_takes_pairs(reader: Model) -> None:
    with pytest.raises(InputError, match=r"texts\[1\]: a string, expected a pair"):
        reader.answer([("а", "б"), "в"])  # type: ignore[list-item]  # wrong on purpose


def test_a_graph_of_another_task_is_refused(make_package: Maker) -> None:
    package: Path = make_package(labels=TAGS, task="token-classification", on_pieces=False)
    with pytest.raises(PackageError, match="logits has 2 axes, expected 3 of a token-class"):
        load(package, lanes=1)


def test_commands_print_json_lines(
    tagger: Model, reader: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "texts.txt"
    lines.write_text("вот добрый день\nи\n", encoding="utf-8")
    assert main(["tag", str(tagger.package.path), str(lines)]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["entities"][0] | {"score": 1} == {
        "label": "DAY", "start": 4, "end": 15, "text": "добрый день", "score": 1
    }  # fmt: skip
    assert second == {"entities": []}
    asked = tmp_path / "asked.jsonl"
    record = {"question": "мир?", "context": "вот добрый день"}
    asked.write_text(json.dumps(record), encoding="utf-8")
    assert main(["answer", str(reader.package.path), str(asked)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["text"], found["start"], found["end"]) == ("добрый день", 4, 15)


def test_commands_complain_before_they_read(
    shared_package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    for name in ("tag", "answer"):
        assert main([name, str(shared_package)]) == 1
        assert f"{name} needs one for" in capsys.readouterr().err


def test_entities_follow_the_marks_of_their_words() -> None:
    words = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    marks = ["I-DAY", "I-DAY", "B-DAY", "B-MAN", "I-DAY"]
    logits = np.full((5, 4), -9.0, np.float32)
    for row, mark in enumerate(marks):
        logits[row, TAGS.index(mark)] = 9
    found = read_entities("а б в г д", words, logits, TAGS)
    assert [(e.label, e.start, e.end) for e in found] == [
        ("DAY", 0, 3), ("DAY", 4, 5), ("MAN", 6, 7), ("DAY", 8, 9),
    ]  # fmt: skip
    assert found[0] == Entity("DAY", 0, 3, "а б", pytest.approx(1, abs=1e-5))


def test_the_best_span_ends_after_it_begins() -> None:
    logits = np.array([[0, 9], [5, 0], [0, 4], [6, 0]], np.float32)
    inside = np.array([False, True, True, True])
    score, first, last = best_span(logits, inside)
    assert (first, last) == (1, 2)
    starts, ends = (np.exp(c) / np.exp(c).sum() for c in logits.T)
    assert score == pytest.approx(starts[1] * ends[2], rel=1e-5)


@pytest.mark.parametrize(("length", "room"), [(0, 5), (5, 5), (6, 5), (23, 6), (9, 1)])
def test_windows_cover_every_piece(length: int, room: int) -> None:
    found = list(windows(length, room=room))
    assert found[0][0] == 0 and found[-1][1] == length
    assert all(0 <= b - a <= room for a, b in found)
    assert all(c <= b for (_, b), (c, _) in zip(found[:-1], found[1:], strict=True))
