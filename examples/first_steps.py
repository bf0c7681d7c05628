"""What the package does, in a minute: find by meaning, compare, classify."""

import time

from rubert_lite import load

ANSWERS = [
    "Средства за отменённый рейс поступят на карту в течение десяти дней.",
    "Чтобы сменить пароль, откройте настройки учётной записи.",
    "Курьер привезёт посылку завтра с девяти до двенадцати.",
    "Шоколад ядовит для щенков и взрослых псов.",
    "При высокой температуре вызовите врача на дом.",
    "Обжарьте лук и морковь на сковороде до золотистой корочки.",
    "Снегопад остановил движение транспорта в центре города.",
    "Акции банка подешевели после квартального отчёта.",
]
# Questions share no word with their answers; the number is that of the right answer.
QUESTIONS = [
    ("когда вернут деньги за билет на самолёт", 1),
    ("не могу войти в свой аккаунт", 2),
    ("где мой заказ из магазина", 3),
    ("чем опасно кормить собаку", 4),
    ("ребёнок заболел, что делать", 5),
    ("рецепт жареных овощей", 6),
    ("дороги встали из-за погоды", 7),
    ("что происходит на бирже", 8),
    ("how do I change my password", 2),
    ("when will my parcel arrive", 3),
]
TEXTS = ["Спасибо за помощь, всё получилось!", "Ты полный идиот и придурок.", "Закрой рот, тварь."]


def main() -> None:
    """Print what is found, predictions, and how long it took."""
    started = time.perf_counter()
    model = load("distil-16k")
    loaded = time.perf_counter()
    print(f"{model.package.manifest.name}: {model.dim} dimensions, {model.lanes} lanes\n")
    answers = model.encode(ANSWERS)
    began = time.perf_counter()
    questions = model.encode([question for question, _ in QUESTIONS])
    encoded = time.perf_counter()
    scores = questions @ answers.T
    best = scores.argmax(axis=1)
    print("The nearest answer to each question (none shares a word with it):")
    for (question, right), row, place in zip(QUESTIONS, scores, best, strict=True):
        note = "" if place == right - 1 else f"   <- expected: {ANSWERS[right - 1]}"
        print(f"  {row[place]:.2f}  {question}\n        {ANSWERS[place]}{note}")
    hits = sum(int(place) == right - 1 for (_, right), place in zip(QUESTIONS, best, strict=True))
    print(f"  right: {hits} of {len(QUESTIONS)} (README.md, Limits: what a small model misses)")
    if model.labels:
        print("\nClasses:")
        for text, found in zip(TEXTS, model.classify(TEXTS), strict=True):
            print(f"  {found.label:8} {found.score:.2f}   {text}")
    print(
        f"\nloaded in {1000 * (loaded - started):.0f} ms, {len(QUESTIONS)} questions encoded in"
        f" {1000 * (encoded - began):.1f} ms"
    )


if __name__ == "__main__":
    main()
