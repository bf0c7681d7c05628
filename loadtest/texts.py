"""Russian texts of the lengths that real ones have, from a seed; no two are equal."""

import math
import random
from collections.abc import Iterator

# Words a text: median 12, a tenth above 45, cut at 300. Measured on comments, reviews and news.
_MEDIAN, _SIGMA, _MOST = 12.0, 1.0, 300

_SUBJECTS = [
    "курьер",
    "магазин",
    "телефон",
    "заказ",
    "доставка",
    "менеджер",
    "квартира",
    "машина",
    "поезд",
    "врач",
    "учитель",
    "сосед",
    "фильм",
    "книга",
    "ресторан",
    "отель",
    "договор",
    "банк",
    "сервис",
    "программа",
    "обновление",
    "экран",
    "батарея",
    "погода",
    "город",
    "дорога",
    "ребёнок",
    "собака",
    "кошка",
    "компания",
    "поддержка",
    "клиент",
    "посылка",
    "скидка",
    "билет",
    "рейс",
]
_VERBS = [
    "приехал",
    "сломался",
    "понравился",
    "опоздал",
    "помог",
    "исчез",
    "работает",
    "изменился",
    "открылся",
    "закрылся",
    "подорожал",
    "удивил",
    "задержался",
    "появился",
    "ответил",
    "позвонил",
    "потерялся",
    "вернулся",
    "начался",
    "закончился",
]
_ENDS = [
    "вчера",
    "сегодня утром",
    "в понедельник",
    "без предупреждения",
    "на два часа",
    "очень быстро",
    "слишком поздно",
    "в центре города",
    "по низкой цене",
    "после обновления",
    "вместо обещанного",
    "как всегда",
    "впервые за год",
    "несмотря на дождь",
    "из-за ремонта",
    "без всякой причины",
    "ближе к вечеру",
    "третий раз подряд",
]
_OPENINGS = [
    "Добрый день!",
    "Спасибо,",
    "К сожалению,",
    "Честно говоря,",
    "Подскажите, пожалуйста:",
    "Друзья,",
    "В общем,",
    "Итак,",
    "По-моему,",
    "Здравствуйте,",
]


def make_texts(seed: int, *, words: int | None = None) -> Iterator[str]:
    """Yield texts without end; all of `words` words if that is given."""
    chance = random.Random(seed)
    number = 0
    given = words
    while True:
        number += 1
        words = given or min(_MOST, max(1, round(_MEDIAN * math.exp(chance.gauss(0, _SIGMA)))))
        parts = [chance.choice(_OPENINGS)] if chance.random() < 0.4 else []
        # A number makes the text new to every cache.
        parts.append(f"{chance.choice(_SUBJECTS)} {number}")
        while sum(len(p.split()) for p in parts) < words:
            sentence = f"{chance.choice(_SUBJECTS)} {chance.choice(_VERBS)} {chance.choice(_ENDS)}"
            parts.append(sentence + chance.choice((".", ",", "!", ";", "")))
        yield " ".join(" ".join(parts).split()[:words])
