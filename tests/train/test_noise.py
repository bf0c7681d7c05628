import random

import pytest

from train.noise import add_typos, drop_punctuation


def test_typos_hit_about_the_share_asked_for_and_leave_first_letters():
    words = ["переводчица", "хорошая", "книжный"] * 200
    spoiled = add_typos(" ".join(words), random.Random(0), share=0.3).split(" ")
    hit = [(a, b) for a, b in zip(words, spoiled, strict=True) if a != b]
    assert 120 < len(hit) < 240
    assert all(a[0] == b[0] and abs(len(a) - len(b)) <= 1 for a, b in hit)


def test_short_words_numbers_and_links_stay():
    text = "да 12345 www.site.ru/путь и я"
    assert add_typos(text, random.Random(0), share=1.0) == text


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("Кто-то — там: 3,5 см; it's ok?!", "Кто-то там 3,5 см it's ok"),
        ("(Привет),\n мир...", "Привет мир"),
        ("Да!", "Да"),
        ("?!", "?!"),
        ("", ""),
    ],
)
def test_bare_texts_keep_marks_inside_words_alone(text, bare):
    assert drop_punctuation(text) == bare
