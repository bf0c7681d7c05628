"""The models that the wheel carries."""

import json
from pathlib import Path

import numpy as np
import pytest

from export.sample import TEXTS
from rubert_lite import available_models, load
from rubert_lite.locate import shipped_folder

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(n for n, path in available_models().items() if path.parent == shipped_folder())


def test_the_default_is_there():
    assert "distil-16k" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_package_is_small_and_says_what_it_is(name):
    package = load(name).package
    size = sum(entry.size for entry in package.manifest.files.values())
    assert size <= 8_000_000
    card = package.file("README.md").read_text(encoding="utf-8")
    assert "No RuBERT weights were used" in card and "## Training text" in card
    for corpus in package.manifest.provenance["corpora"]:
        assert corpus["license"] in card and "NC" not in corpus["license"]
    assert "LICENSE" in package.manifest.files


@pytest.mark.parametrize("name", NAMES)
def test_a_text_alone_is_the_text_in_any_batch_order_and_lane(name):
    texts = [*TEXTS, *(t.upper() for t in TEXTS), *(t[: len(t) // 2] for t in TEXTS)]
    whole = load(name, lanes=3).encode(texts)
    one_lane = load(name, lanes=1)
    alone = np.concatenate([one_lane.encode([t]) for t in texts])
    assert np.abs(whole - alone).max() <= 1e-6
    assert np.abs(whole - one_lane.encode(texts[::-1])[::-1]).max() <= 1e-6
    assert (
        np.abs(
            whole - one_lane.encode([*texts[7:], *texts[:7]])[np.r_[-7:0, 0 : len(texts) - 7]]
        ).max()
        <= 1e-6
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_paraphrase_is_nearer_than_another_subject(name):
    model = load(name)
    vectors = model.encode(
        [
            "Поезд опоздал на два часа.",
            "Поезд опоздал на три часа.",
            "Обжарьте лук и морковь на масле.",
        ]
    )
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > cosines[0, 2] + 0.05
    assert {p.label for p in model.classify(["Закрой рот, тварь."])} <= set(model.labels)


@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_those_of_the_release(name):
    """Golden vectors, made by torch when the model was released: tests/make_golden.py."""
    golden = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    manifest = load(name).package.manifest
    assert golden["tokenizer_sha256"] == manifest.tokenizer_sha256
    for variant in manifest.variants:
        rows = load(name, variant=variant).encode(golden["texts"])
        expected, exact = (np.array(golden[k]) for k in (variant, "torch"))
        first = rows[:, : expected.shape[1]]
        # Processors round 8-bit products differently, but not by much.
        assert np.abs(first - expected).max() <= 5e-3
        assert np.abs(first - exact).max() <= 0.03
