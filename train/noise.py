"""Typing errors and missing punctuation: for training against them, and to measure errors by."""

import random

_NEIGHBOURS = {  # on the Russian keyboard
    letter: row[max(i - 1, 0) : i] + row[i + 1 : i + 2]
    for row in ("йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю")
    for i, letter in enumerate(row)
}
_LEAST_WORD = 4  # letters: shorter words become other words


def add_typos(text: str, chance: random.Random, *, share: float = 0.15) -> str:
    """Put one error into each word of four letters or more with this probability.

    Errors: two letters swapped, one left out, doubled, or replaced by a neighbour on the keyboard.
    The first letter stays. A ё of a hit word is first written as е.
    """
    words = text.split(" ")
    for place, word in enumerate(words):
        if len(word) < _LEAST_WORD or not word.isalpha() or chance.random() >= share:
            continue
        words[place] = _spoil(word.replace("ё", "е").replace("Ё", "Е"), chance)
    return " ".join(words)


def drop_punctuation(text: str) -> str:
    """Leave out every mark but those inside words and numbers, as hurried people write.

    "Кто-то", "3,5" and "it's" stay. White space becomes single spaces. A text of marks alone stays.
    """
    inside = (text[i - 1].isalnum() and text[i + 1].isalnum() for i in range(1, len(text) - 1))
    stays = [False, *inside, False]
    kept = "".join(
        c for c, inner in zip(text, stays, strict=False) if inner or c.isalnum() or c.isspace()
    )
    return " ".join(kept.split()) or text


def _spoil(word: str, chance: random.Random) -> str:
    i = chance.randrange(1, len(word) - 1)
    kind = chance.randrange(4)
    if kind == 0:
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    if kind == 1:
        return word[:i] + word[i + 1 :]
    if kind == 2:
        return word[:i] + word[i] + word[i:]
    near = _NEIGHBOURS.get(word[i].lower(), word[i])
    return word[:i] + chance.choice(near) + word[i + 1 :]
