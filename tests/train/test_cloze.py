"""Spans cut out of texts, and what is left of them."""

import numpy as np
import torch

from train.cloze import LEAST, cut, word_beginnings

BEGINS = np.arange(100) % 3 != 0  # every third piece goes on with a word


class Plain:
    """Texts of numbers, between 2 and 3."""

    def __init__(self, lengths, longer=0):
        chance = np.random.default_rng(1)
        self.texts = [np.r_[2, chance.integers(5, 100, size=n - 2), 3] for n in lengths]
        self.lengths = np.array(lengths, np.int32) + longer

    def batch(self, rows):
        texts = [torch.from_numpy(self.texts[i]) for i in rows]
        self.student_ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
        lengths = torch.tensor([len(t) for t in texts])
        self.student_mask = torch.arange(self.student_ids.shape[1]) < lengths[:, None]
        return self


def text(ids):
    return " ".join(map(str, ids))


def test_spans_are_whole_words_of_their_texts():
    texts = Plain([60] * 300)
    spans, rests = cut(texts, 300, begins=BEGINS, seed=1)
    assert len(spans) == len(rests) == 300
    whole = {text(t): t for t in texts.texts}
    stays = 0
    for span, rest in zip(spans, rests, strict=True):
        assert span[0] == rest[0] == 2 and span[-1] == rest[-1] == 3
        inside = span[1:-1]
        assert BEGINS[inside[0]] and 1 <= len(inside) <= 30
        if text(rest) in whole:
            stays += 1
            assert text(inside) in text(rest)
        else:
            assert len(inside) + len(rest) == 60
            joined = [t for t in texts.texts if sorted(t) == sorted(np.concatenate([inside, rest]))]
            assert len(joined) == 1 and text(inside) in text(joined[0])
            place = text(joined[0]).split(text(inside))[1].split()
            assert BEGINS[int(place[0])] or place[0] == "3"  # what follows begins a word
    assert 50 < stays < 130  # three tenths


def test_short_texts_are_left_out():
    spans, _ = cut(Plain([LEAST - 1] * 5 + [LEAST] * 3), 10, begins=BEGINS, seed=1)
    assert len(spans) == 3
    spans, _ = cut(Plain([20] * 5, longer=100), 10, begins=BEGINS, seed=1)
    assert not spans  # the other side of the shards was longer


def test_texts_without_words_are_left_out():
    assert cut(Plain([60] * 5), 5, begins=np.zeros(100, bool), seed=1) == ([], [])


def test_the_same_seed_cuts_the_same():
    one, same, other = (cut(Plain([60] * 20), 10, begins=BEGINS, seed=s)[0] for s in (1, 1, 2))
    assert list(map(text, one)) == list(map(text, same)) != list(map(text, other))


def test_words_begin_where_no_piece_goes_on():
    assert word_beginnings(["[CLS]", "мо", "##сква", "#"]).tolist() == [True, True, False, True]
