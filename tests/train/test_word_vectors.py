import sys
from importlib import metadata

import numpy as np
import pytest

from rubert_lite.errors import InputError
from train import word_vectors
from train.encoders import open_encoder, package_version
from train.word_vectors import NAVEC, open_navec, weighted_mean

WORDS = ["и", "кот", "пёс", "елка", "!"]
COUNTS = [900, 40, 30, 20, 10]
VECTORS = np.array(
    [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0]], dtype=np.float32
)


def by_hand(*words):
    shares = np.array(COUNTS) / sum(COUNTS)
    weighted = VECTORS * (1e-3 / (1e-3 + shares))[:, None]
    common = shares @ weighted
    common /= np.linalg.norm(common)
    found = sum(weighted[WORDS.index(w)] for w in words)
    found = found - (found @ common) * common
    return found / np.linalg.norm(found)


def test_a_text_is_the_weighted_mean_of_its_words_without_what_all_share():
    found = weighted_mean(WORDS, COUNTS, VECTORS)(["Кот и пёс!", "кот кот дом", "ПЁС"])
    assert found.dtype == np.float32
    expected = [by_hand("кот", "и", "пёс", "!"), by_hand("кот"), by_hand("пёс")]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_yo_is_read_as_ye_where_only_that_is_known():
    found = weighted_mean(WORDS, COUNTS, VECTORS)(["ёлка", "елка", "пес"])
    np.testing.assert_allclose(found[0], found[1])
    assert not found[2].any()  # `пёс` alone is known: nothing says that this is it


def test_texts_of_unknown_words_are_zero():
    found = weighted_mean(WORDS, COUNTS, VECTORS)(["", "дом", "???"])
    assert found.shape == (3, 4) and not found.any()
    assert weighted_mean(WORDS, COUNTS, VECTORS)([]).shape == (0, 4)


@pytest.mark.parametrize("absent", ["module", "wheel"])
def test_what_is_not_installed_is_told(absent, monkeypatch):
    if absent == "module":
        monkeypatch.setitem(sys.modules, "navec", None)
    else:

        def missing(name):
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setitem(sys.modules, "navec", type(sys)("navec"))
        sys.modules["navec"].Navec = None
        monkeypatch.setattr(word_vectors.metadata, "distribution", missing)
        monkeypatch.setattr(word_vectors.metadata, "version", missing)
        assert package_version(NAVEC) == ""
    with pytest.raises(InputError, match="pip install --no-deps navec natasha"):
        open_encoder(NAVEC)


def test_the_file_is_looked_for_in_the_wheel(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "navec", type(sys)("navec"))
    seen = []

    class Vocabulary:
        words, counts = WORDS, COUNTS

    class Navec:
        vocab = Vocabulary

        class pq:  # noqa: N801
            unpack = staticmethod(lambda: VECTORS)

        @classmethod
        def load(cls, path):
            seen.append(path)
            return cls

    class Wheel:
        locate_file = staticmethod(lambda name: tmp_path / name)

    sys.modules["navec"].Navec = Navec
    monkeypatch.setattr(word_vectors.metadata, "distribution", lambda name: Wheel)
    assert open_navec()(["кот"]).shape == (1, 4)
    assert seen[0].name == "navec_news_v1_1B_250K_300d_100q.tar"
