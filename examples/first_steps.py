"""What the package does, in a minute: find by meaning, compare, classify."""

import time

from rubert_lite import load

# A query, a text of the same meaning in other words, and one of like words with another meaning.
TRIPLES = [
    ("Где мой заказ?", "Когда доставят посылку?", "Где мой брат?"),
    ("Цены на бензин выросли.", "Топливо подорожало.", "Цветы на балконе выросли."),
    ("Машина сломалась в дороге.", "Автомобиль заглох в пути.", "Машина едет по дороге."),
    ("Врач выписал лекарство.", "Доктор назначил таблетки.", "Врач выписал журнал."),
    ("Не могу войти в аккаунт.", "Пароль не подходит.", "Не могу войти в дом."),
    ("Собака лаяла всю ночь.", "Пёс шумел до утра.", "Соседка спала всю ночь."),
    ("Сколько стоит билет?", "Какая цена проезда?", "Сколько длится фильм?"),
    ("Он умер в прошлом году.", "Его не стало год назад.", "Он женился в прошлом году."),
    ("Ребёнок заболел.", "У малыша температура.", "Ребёнок засмеялся."),
    ("The train was two hours late.", "Поезд сильно опоздал.", "Тренер опоздал на тренировку."),
]
TEXTS = ["Спасибо за помощь, всё получилось!", "Ты полный идиот и придурок.", "Закрой рот, тварь."]


def main() -> None:
    """Print cosines, predictions, and how long it took."""
    started = time.perf_counter()
    model = load("distil-16k")
    loaded = time.perf_counter()
    print(f"{model.package.manifest.name}: {model.dim} dimensions, {model.lanes} lanes")
    if not model.package.manifest.provenance.get("sentence_stage"):
        print("(a masked language model: its vectors follow words more than meaning)")
    flat = [text for triple in TRIPLES for text in triple]
    began = time.perf_counter()
    rows = model.encode(flat).reshape(len(TRIPLES), 3, model.dim)
    encoded = time.perf_counter()
    same, other = (rows[:, 0] * rows[:, 1]).sum(1), (rows[:, 0] * rows[:, 2]).sum(1)
    print("\nCosine with a text of the same meaning | of another meaning but like words:")
    for (query, right, wrong), a, b in zip(TRIPLES, same, other, strict=True):
        print(
            f"  {'ok ' if a > b else '   '} {query}\n      {a:5.2f} {right}\n      {b:5.2f} {wrong}"
        )
    print(f"  meaning wins {int((same > other).sum())} times of {len(TRIPLES)}")
    if model.labels:
        print("\nClasses:")
        for text, found in zip(TEXTS, model.classify(TEXTS), strict=True):
            print(f"  {found.label:8} {found.score:.2f}   {text}")
    print(
        f"\nloaded in {1000 * (loaded - started):.0f} ms, {len(flat)} texts encoded in"
        f" {1000 * (encoded - began):.1f} ms"
    )


if __name__ == "__main__":
    main()
