"""Batches made on a device are those that are made on the host."""

from dataclasses import fields
from itertools import islice

import numpy as np
import pytest
import torch

from train.batches import plan
from train.resident import ResidentItems, ResidentTexts, items_on, texts_on

from .test_sentence import data_of, splits_of
from .toy_pair import STUDENT, TEACHER, shards_of

CPU = torch.device("cpu")


def assert_equal(found, wanted):
    for field in fields(wanted):
        assert torch.equal(getattr(found, field.name), getattr(wanted, field.name)), field.name


@pytest.mark.parametrize("strings", [False, True])
def test_texts_on_a_device_give_the_same_batches(tmp_path, write_tokenizer, strings):
    texts = shards_of(tmp_path, write_tokenizer, TEACHER, STUDENT)
    resident = ResidentTexts(texts, CPU)
    assert len(resident) == len(texts)
    for indices in islice(plan(texts.lengths, tokens=60, seed=3), 20):
        wanted = texts.batch(indices, strings=strings)
        assert_equal(resident.batch(indices, strings=strings), wanted)


def test_items_on_a_device_give_the_same_batches(tmp_path):
    items, _ = splits_of(data_of(tmp_path, noise_share=0.5))
    resident = ResidentItems(items, CPU)
    assert len(resident) == len(items)
    for indices in islice(plan(items.lengths, tokens=50, seed=3), 20):
        assert_equal(resident.batch(indices), items.batch(indices))


def test_the_last_text_is_not_read_past_its_end(tmp_path, write_tokenizer):
    texts = shards_of(tmp_path, write_tokenizer, TEACHER, STUDENT)
    last = np.array([0, len(texts) - 1])
    assert_equal(ResidentTexts(texts, CPU).batch(last), texts.batch(last))


def test_without_a_gpu_texts_stay_on_disk(tmp_path, write_tokenizer):
    texts = shards_of(tmp_path, write_tokenizer, TEACHER, STUDENT)
    assert texts_on(texts, CPU) is texts
    items, _ = splits_of(data_of(tmp_path))
    assert items_on(items, CPU) is items
