"""Answers as stretches of a context: windows, what they are taught, how they are read."""

import pytest

from export.pack import export
from rubert_lite import load
from rubert_lite.errors import InputError
from train.answers import Answers
from train.finetune import Tuning, finetune
from train.labelled import Asked, Labelled
from train.tuned import open_reader

from .toy_tuning import write_tiny


@pytest.fixture
def checkpoint(tmp_path):
    return write_tiny(tmp_path)


def answers(*asked: Asked) -> Answers:
    return Answers(Labelled(asked, asked, ("start", "end")))


def ends(rows) -> list[tuple[int, int]]:
    return [tuple(int(x) for x in r.target.argmax(0)) for r in rows]


def test_answers_are_learnt_and_read_in_windows(checkpoint, tmp_path):
    """The answer is the word after "сад", wherever it stands."""
    rows = []
    for word in ("мир", "дом"):
        for before in range(0, 12, 2):
            context = "привет " * before + f"сад {word} " + "привет " * (12 - before)
            start = context.index("сад") + 4
            rows.append(Asked("привет", context, ((start, start + 3),)))
    kind = answers(*rows)
    options = {"freeze_encoder": False, "learning_rate": 0.01, "batch_size": 8, "max_length": 14}
    (tmp_path / "out").mkdir()
    tuning = Tuning(epochs=60, **options)
    scores = finetune(checkpoint, kind, tuning=tuning, out=tmp_path / "out")
    assert scores["f1"] == scores["em"] == 1.0
    package = export(tmp_path / "out", tmp_path / "package", variants=("fp32",)).path
    (found,) = load(package).answer([("привет", "привет привет сад дом привет")])
    assert (found.text, found.start) == ("дом", 18)


def test_windows_without_the_answer_point_at_their_beginning(checkpoint):
    asked = Asked("дом", "привет " * 20 + "мир", ((140, 143),))
    rows = answers(asked).rows(open_reader(checkpoint, 12), max_length=12)
    *others, (first, last) = ends(rows)
    assert set(others) == {(0, 0)} and len(others) > 1
    assert first == last == len(rows[-1].pieces.ids) - 2


def test_each_window_is_taught_an_accepted_answer_that_it_has(checkpoint):
    """Both places are right: no window that has one of them learns that there is none."""
    context = "сад " + "дом " * 20 + "сад"
    asked = Asked("мир", context, ((0, 3), (84, 87)))
    rows = answers(asked).rows(open_reader(checkpoint, 12), max_length=12)
    *_, last = ends(rows)
    assert ends(rows)[0] == (3, 3) and last == (len(rows[-1].pieces.ids) - 2,) * 2
    assert set(ends(rows)[1:-1]) == {(0, 0)}


def test_a_window_that_cuts_an_answer_teaches_nothing(checkpoint, caplog):
    reader = open_reader(checkpoint, 12)
    context = "дом " * 6 + "сад " * 5 + "дом " * 9
    asked = Asked("мир", context, ((24, 43),))
    rows = answers(asked).rows(reader, max_length=12)
    sad = reader.read(["сад"])[0].ids[1]
    for row, (first, last) in zip(rows, ends(rows), strict=True):
        assert row.pieces.ids.count(sad) == (last - first + 1 if first else 0) in (0, 5)
    assert any(first for first, _ in ends(rows)) and not caplog.text
    long = Asked("мир", "сад " * 30, ((0, 119),))
    assert len(answers(asked, long).rows(reader, max_length=12)) == len(rows)
    assert "1 of 2 questions are left out: no window of 12 pieces" in caplog.text
    with pytest.raises(InputError, match="no answer fits into a window of 12 pieces"):
        answers(long).rows(reader, max_length=12)
