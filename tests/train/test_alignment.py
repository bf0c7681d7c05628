from hypothesis import given
from hypothesis import strategies as st

from rubert_lite.wordpiece import SPECIAL_PIECES
from tests.train.conftest import ALPHABET, wordpiece
from train.alignment import align, match_strings, notation, piece_splits, split_piece
from train.tokenizer import open_tokenizer

TEACHER = open_tokenizer(wordpiece("хорошая", "перевод", "##чица", "привет", "##вет", "при"))
STUDENT = open_tokenizer(wordpiece("хоро", "##шая", "перевод", "##чи", "##ца", "при", "##вет"))


def pieces(text: str) -> list[str]:
    return text.split()


def test_worked_example_aligns_by_place():
    # METHODS: teacher "хорошая перевод ##чица", student "хоро ##шая перевод ##чи ##ца"
    text = "хорошая переводчица"
    teacher, student = TEACHER.encode(text), STUDENT.encode(text)
    assert notation(TEACHER, text) == "хорошая|перевод|##чица"
    assert notation(STUDENT, text) == "хоро|##шая|перевод|##чи|##ца"
    found = align(teacher, student)
    assert found.pairs == [(0, 0), (2, 3), (4, 6)]
    assert found.teacher_group.tolist() == [0, 1, 2, 3, 4]
    assert found.student_group.tolist() == [0, 1, 1, 2, 3, 3, 4]


def test_published_matching_of_the_worked_example():
    teacher = pieces("[CLS] хорошая перевод ##чица [SEP]")
    student = pieces("[CLS] хоро ##шая перевод ##чи ##ца [SEP]")
    assert match_strings(teacher, student) == [(0, 0), (2, 3), (4, 6)]


def test_published_matching_grabs_a_distant_piece():
    """The known defect: the first `и` takes the second one's place, and `дом ##а был` are lost."""
    teacher = pieces("[CLS] и дом ##а был и сад [SEP]")
    student = pieces("[CLS] н ##о дом ##а был и сад [SEP]")
    assert match_strings(teacher, student) == [(0, 0), (1, 6), (6, 7), (7, 8)]


def test_alignment_by_place_has_no_such_defect():
    teacher = open_tokenizer(wordpiece("но", "дом", "был", "сад"))
    student = open_tokenizer(wordpiece("дом", "был", "сад"))
    text = "но дома был и сад"
    found = align(teacher.encode(text), student.encode(text))
    sides = teacher.encode(text).tokens, student.encode(text).tokens
    assert [(sides[0][t], sides[1][s]) for t, s in found.pairs] == [
        (p, p) for p in pieces("[CLS] дом ##а был и сад [SEP]")
    ]


def test_splits_of_the_worked_example():
    student = {p: i for i, p in enumerate(pieces("пере перевод хоро ##шая ##чи ##ца"))}

    def split(piece: str) -> list[str] | None:
        names = list(student)
        found = split_piece(piece, student)
        return None if found is None else [names[i] for i in found]

    assert split("хорошая") == ["хоро", "##шая"]
    assert split("перевод") == ["перевод"]
    assert split("##чица") == ["##чи", "##ца"]
    assert split("##чо") is None  # no mixed [piece, UNK] lists as in the published code


def test_specials_map_to_themselves_and_unused_to_nothing():
    student = {p: i for i, p in enumerate([*SPECIAL_PIECES, "дом"])}
    teacher = [*SPECIAL_PIECES, "[unused1]", "дом", "[", "]"]
    splits = piece_splits(teacher, student, special=SPECIAL_PIECES)
    assert splits == [[0], [1], [2], [3], [4], [], [5], [], []]


TEXTS = st.text(alphabet=ALPHABET + "    ☃Ёé", max_size=60)


@given(TEXTS)
def test_groups_partition_both_sides_and_cover_the_same_characters(text: str):
    teacher, student = TEACHER.encode(text), STUDENT.encode(text)
    found = align(teacher, student)
    for groups, encoding in ((found.teacher_group, teacher), (found.student_group, student)):
        assert len(groups) == len(encoding.ids)
        assert groups[0] == 0 and set(groups[1:] - groups[:-1]) <= {0, 1}
    assert found.teacher_group[-1] == found.student_group[-1]
    for group in range(1, found.teacher_group[-1]):
        covered = []
        for groups, encoding in ((found.teacher_group, teacher), (found.student_group, student)):
            spans = [s for g, s in zip(groups, encoding.offsets, strict=True) if g == group]
            covered.append((spans[0][0], spans[-1][1]))
        assert covered[0] == covered[1]


@given(TEXTS)
def test_matches_have_the_same_span_and_never_cross(text: str):
    teacher, student = TEACHER.encode(text), STUDENT.encode(text)
    pairs = align(teacher, student).pairs
    assert pairs[0] == (0, 0) and pairs[-1] == (len(teacher.ids) - 1, len(student.ids) - 1)
    for t, s in pairs:
        assert teacher.offsets[t] == student.offsets[s]
    assert pairs == sorted(pairs, key=lambda p: p[1])


@given(TEXTS)
def test_every_common_piece_of_a_word_matches(text: str):
    """Offset matching finds at least all pieces that are equal in string and place."""
    teacher, student = TEACHER.encode(text), STUDENT.encode(text)
    pairs = set(align(teacher, student).pairs)
    places = {
        (p, o): i for i, (p, o) in enumerate(zip(student.tokens, student.offsets, strict=True))
    }
    for t, key in enumerate(zip(teacher.tokens, teacher.offsets, strict=True)):
        if key in places and key[0] not in ("[CLS]", "[SEP]"):
            assert (t, places[key]) in pairs


@given(TEXTS)
def test_equal_vocabularies_match_everywhere(text: str):
    encoding = TEACHER.encode(text)
    found = align(encoding, encoding)
    assert found.teacher_matched.all() and found.student_matched.all()
