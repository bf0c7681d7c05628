import json
import lzma

import pytest
from tokenizers import Tokenizer

from rubert_lite.errors import InputError
from train.labels import LabelledTexts
from train.smileys import both_ways, hide_smileys, mood, read_moods
from train.tasks import Records, Task

from .test_sentence import SPEC


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("спасибо))", "glad"),
        ("привет)", "glad"),
        ("Сегодня тепло :-)", "glad"),
        ("ладно ;)", "glad"),
        ("Ура =D", "glad"),
        ("красота 😍", "glad"),
        ("люблю ❤️", "glad"),
        ("опять дождь(", "sad"),
        ("заболела ((( не приду", "sad"),
        ("жаль :(", "sad"),
        ("потерял ключи :'(", "sad"),
        ("бедный кот 😢", "sad"),
        ("Дом стоит у реки.", "none"),
        ("он (мой брат) уехал", "none"),
        ("он уехал (в Москву)", "none"),
        ("он уехал (в Москву, говорят)", "none"),
        ("1) хлеб", "none"),
        ("а) хлеб б) соль", "glad"),  # a letter of a list looks like a smiley: they are rare
        ("смешно) но грустно 😢", ""),
        ("f(x) = 2", "none"),
        ("", "none"),
    ],
)
def test_the_mood_is_what_smileys_say(text, expected):
    assert mood(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("спасибо)) 😊 всё дошло :-)", "спасибо всё дошло"),
        ("он (мой брат) уехал", "он мой брат уехал"),  # every bracket: none tells of the mood
        ("👍🏽 да ❤️", "да"),
        (":)", ""),
        ("в 10:30", "в 10:30"),
    ],
)
def test_nothing_of_them_is_left(text, expected):
    assert hide_smileys(text) == expected


def test_as_many_texts_without_smileys_are_drawn_as_of_the_commoner_mood(tmp_path):
    path = tmp_path / "replies.txt.xz"
    lines = ["ура)", "ура)", "класс :)", "беда(", "да) нет 😢", *(f"дом {n}" for n in range(9))]
    path.write_bytes(lzma.compress("\n".join(lines).encode()))
    found = read_moods(str(path))
    assert found.labels == ["glad", "glad", "none", "none", "sad"]
    assert found.texts[0][:2] == ["ура)", "класс :)"]  # each text once
    assert read_moods(str(path)) == found


def test_texts_are_shown_both_ways():
    found = both_ways(Records((["ура)", ":)", "дом"],), ["glad", "glad", "none"]))
    assert found.texts == (["ура)", ":)", "дом", "ура"],)
    assert found.labels == ["glad", "glad", "none", "glad"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b"\xd1\x83\xd1\x80\xd0\xb0)\n\xff\n", r"replies\.txt:2: not UTF-8"),
        ("дом\nура)\n".encode(), r"replies\.txt: no text with a sad smiley"),
        (b"", r"replies\.txt: no text with a glad smiley"),
    ],
)
def test_bad_files_are_told(tmp_path, lines, message):
    path = tmp_path / "replies.txt"
    path.write_bytes(lines)
    with pytest.raises(InputError, match=message):
        read_moods(str(path))


def test_held_out_texts_are_known_with_their_smileys(tmp_path):
    path, held_out = tmp_path / "replies.txt", tmp_path / "dev.txt"
    path.write_text("ура)\nмир)\nбеда(\n", encoding="utf-8")
    held_out.write_text("Мир)\n", encoding="utf-8")
    task = Task("smileys", str(path), "", "accuracy", smileys=True)
    tokenizer = Tokenizer.from_str(json.dumps(SPEC))
    found = LabelledTexts.read([task], tokenizer, exclude=[str(held_out)], max_length=16)
    assert found.ends == (2,) and found.counts == (4,)  # two texts, each both ways
