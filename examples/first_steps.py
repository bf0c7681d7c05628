"""What the package does, in a minute: encode Russian sentences, compare them, classify texts."""

import time

from rubert_lite import load

SENTENCES = [
    "Поезд опоздал на два часа.",
    "Поезд опоздал почти на три часа.",
    "Электричка пришла с большим опозданием.",
    "Нарежьте лук и обжарьте его на масле.",
    "Обжарьте лук и морковь на масле.",
]
TEXTS = ["Спасибо за помощь, всё получилось!", "Ты полный идиот и придурок.", "Закрой рот, тварь."]


def main() -> None:
    """Print a similarity table, predictions, and how long it took."""
    started = time.perf_counter()
    model = load("distil-16k")
    loaded = time.perf_counter()
    vectors = model.encode(SENTENCES)
    encoded = time.perf_counter()
    manifest = model.package.manifest
    print(
        f"{manifest.name}: {manifest.vocab_size:,} pieces, {model.dim} dimensions,"
        f" {model.lanes} lanes"
    )
    if not manifest.provenance.get("sentence_stage"):
        print("(a masked language model: its vectors follow words more than meaning)")
    print("\nCosine similarity:")
    for number, (sentence, row) in enumerate(zip(SENTENCES, vectors @ vectors.T, strict=True), 1):
        print(f"  {number}. " + "  ".join(f"{value:5.2f}" for value in row) + f"   {sentence}")
    print("\nClasses:")
    for text, found in zip(TEXTS, model.classify(TEXTS), strict=True):
        print(f"  {found.label:8} {found.score:.2f}   {text}")
    print(
        f"\nloaded in {1000 * (loaded - started):.0f} ms, {len(SENTENCES)} sentences encoded in",
        end=" ",
    )
    print(f"{1000 * (encoded - loaded):.1f} ms")


if __name__ == "__main__":
    main()
