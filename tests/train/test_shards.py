import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rubert_lite.errors import InputError
from tests.train.conftest import ALPHABET, wordpiece
from train.alignment import align
from train.batches import Texts, plan, plan_epoch
from train.shards import GROUP_END, MATCHED, STRING_MATCHED, Shard, align_texts, build_shards
from train.tokenizer import open_tokenizer

TEACHER = open_tokenizer(wordpiece("хорошая", "перевод", "##чица", "привет", "мир"))
STUDENT = open_tokenizer(wordpiece("хоро", "##шая", "перевод", "##чи", "##ца", "при", "##вет"))
LINES = st.lists(
    st.text(alphabet=ALPHABET + "   ", min_size=1, max_size=40), min_size=1, max_size=6
)


@given(LINES)
def test_many_texts_at_once_align_like_each_alone(texts: list[str]):
    teacher, student, cut = align_texts(texts, TEACHER, STUDENT, max_length=512)
    assert cut == 0
    for index, text in enumerate(texts):
        encodings = TEACHER.encode(text), STUDENT.encode(text)
        alone = align(*encodings)
        for side, encoding, matched, groups in (
            (teacher, encodings[0], alone.teacher_matched, alone.teacher_group),
            (student, encodings[1], alone.student_matched, alone.student_group),
        ):
            place = side.text(index)
            assert side.ids[place].tolist() == encoding.ids
            assert ((side.flags[place] & MATCHED) > 0).tolist() == matched.tolist()
            ends = np.append(groups[1:] != groups[:-1], True)
            assert ((side.flags[place] & GROUP_END) > 0).tolist() == ends.tolist()


@given(LINES, st.integers(8, 20))
def test_a_cut_text_ends_at_a_common_boundary(texts: list[str], max_length: int):
    whole_t, whole_s, _ = align_texts(texts, TEACHER, STUDENT, max_length=512)
    teacher, student, cut = align_texts(texts, TEACHER, STUDENT, max_length=max_length)
    long = 0
    for index in range(len(texts)):
        sides = []
        for side, whole in ((teacher, whole_t), (student, whole_s)):
            ids, full = side.ids[side.text(index)], whole.ids[whole.text(index)]
            assert len(ids) <= max_length
            assert ids[-1] == full[-1]  # [SEP]
            assert ids[:-1].tolist() == full[: len(ids) - 1].tolist()
            sides.append(
                (len(ids), len(full), int((side.flags[side.text(index)] & GROUP_END > 0).sum()))
            )
        assert sides[0][2] == sides[1][2]  # the same groups are left on both sides
        long += any(n > max_length for _, n, _ in sides)
    assert cut == long


@pytest.fixture
def folder(tmp_path, write_tokenizer):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "train-000.txt").write_text(
        "хорошая переводчица\nпривет, мир\n" * 5, encoding="utf-8"
    )
    (corpus / "train-001.txt").write_text("", encoding="utf-8")
    (corpus / "valid.txt").write_text("привет\n", encoding="utf-8")
    teacher = write_tokenizer("teacher", wordpiece("хорошая", "перевод", "##чица", "привет", "мир"))
    student = write_tokenizer(
        "student", wordpiece("хоро", "##шая", "перевод", "##чи", "##ца", "при")
    )
    out = tmp_path / "shards"
    out.mkdir()
    counts = build_shards(
        corpus, out, teacher=teacher, student=student, max_length=32, strings=True
    )
    return out, counts


def test_shards_are_read_back_as_written(folder):
    out, counts = folder
    assert counts["texts"] == 11
    shard = Shard.open(out / "train-000")
    assert len(shard) == 10
    place = shard.student.text(0)
    assert [STUDENT.id_to_token(int(i)) for i in shard.student.ids[place]][1:3] == ["хоро", "##шая"]
    assert (shard.teacher.flags[shard.teacher.text(0)] & STRING_MATCHED > 0).tolist() == [
        True,
        False,
        True,
        False,
        True,
    ]


def test_batches_hold_the_texts_padded(folder):
    texts = Texts.open(folder[0], "train")
    batch = texts.batch([0, 1])
    assert batch.teacher_mask.sum(1).tolist() == [5, 5]  # хорошая|перевод|##чица; привет|,|мир
    assert batch.student_ids.shape == batch.student_mask.shape
    assert not batch.student_matched[~batch.student_mask].any()
    # хорошая = хоро|##шая, переводчица = перевод|##чица = перевод|##чи|##ца
    row = int(batch.student_mask.sum(1).argmin())
    assert batch.student_group[row].tolist()[:7] == [0, 1, 1, 2, 3, 3, 4]
    assert batch.teacher_group[row].tolist() == [0, 1, 2, 3, 4]
    for row in range(2):
        teacher = batch.teacher_group[row][batch.teacher_mask[row]]
        student = batch.student_group[row][batch.student_mask[row]]
        assert teacher.max() == student.max()
    assert texts.batch([0], strings=True).teacher_matched[0].tolist() == [
        True,
        False,
        True,
        False,
        True,
    ]


def test_missing_shards_name_the_command(tmp_path):
    with pytest.raises(InputError, match="rubert-lite train shards"):
        Texts.open(tmp_path, "train")


@settings(max_examples=30)
@given(
    st.lists(st.integers(2, 60), min_size=1, max_size=300), st.integers(16, 200), st.integers(0, 5)
)
def test_an_epoch_holds_each_text_once_within_the_budget(lengths, tokens, seed):
    array = np.array(lengths, dtype=np.int32)
    batches = list(plan_epoch(array, tokens=tokens, seed=seed, epoch=0))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or array[batch].max() * len(batch) <= tokens
    again = list(plan_epoch(array, tokens=tokens, seed=seed, epoch=0))
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


def test_skipping_goes_on_where_the_plan_was():
    lengths = np.arange(2, 100, dtype=np.int32)
    plans = plan(lengths, tokens=128, seed=3), plan(lengths, tokens=128, seed=3, skip=70)
    first = [next(plans[0]).tolist() for _ in range(80)]
    assert [next(plans[1]).tolist() for _ in range(10)] == first[70:]


def test_a_limit_takes_so_many_training_files_and_what_is_held_out(tmp_path, write_tokenizer):
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    out.mkdir()
    for name in ("train-000", "train-001", "train-002", "valid"):
        (corpus / f"{name}.txt").write_text("привет\n", encoding="utf-8")
    file = write_tokenizer("student", wordpiece("привет"))
    build_shards(corpus, out, teacher=file, student=file, max_length=8, limit=2)
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == [
        "train-000",
        "train-001",
        "valid",
    ]
