"""A toy teacher and student of different pieces, and texts in both."""

import torch

from train.batches import Texts
from train.links import link, link_vocabularies
from train.objective import batch_losses
from train.recipe import Heads, Pair, Recipe
from train.shards import build_shards
from train.student import Shape, build, freeze

from .conftest import wordpiece

TEACHER = wordpiece("привет", "мир", "хорошая", "перевод", "##чица", "дом", "##ами")
STUDENT = wordpiece("при", "##вет", "мир", "хоро", "##шая", "перевод", "##чи", "##ца")
LINES = ["хорошая переводчица", "привет, мир", "дом и мир", "домами", "мир перевод дом"] * 12


def shards_of(tmp_path, write_tokenizer, teacher, student) -> Texts:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in ("train-000", "valid"):
        (corpus / f"{name}.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    files = write_tokenizer("teacher", teacher), write_tokenizer("student", student)
    out = tmp_path / "shards"
    out.mkdir()
    build_shards(corpus, out, teacher=files[0], student=files[1], max_length=32)
    return Texts.open(out, "train")


def pair_of(teacher_spec, student_spec, *, same: bool = False) -> Pair:
    torch.manual_seed(0)
    known = teacher_spec["model"]["vocab"]
    kept = [known.get(p, -1) for p in student_spec["model"]["vocab"]]
    shape = {
        "layers": 2,
        "hidden_size": 16,
        "heads": 2,
        "ffn_size": 32,
        "max_length": 64,
        "dropout": 0.0,
    }
    teacher = freeze(build(Shape(vocab_size=len(known), **shape)))
    student = build(Shape(vocab_size=len(kept), **shape))
    links = link(teacher_spec, student_spec, kept)
    return Pair(student, teacher, link_vocabularies(teacher_spec, student_spec, kept, links, None))


def losses_of(pair, batch, **recipe):
    generator = torch.Generator().manual_seed(1)
    return batch_losses(batch, pair, Heads(None), recipe=Recipe(**recipe), generator=generator)
