"""The vectors stage: one teacher for pairs, another for plain text, or several side by side."""

import json
import shutil
from pathlib import Path

import numpy as np

from train import line_vectors
from train.config import load_config
from train.folders import Line
from train.line import run_line
from train.pairs import read_lines

from .toy_released import UNTIL_SENTENCE

SECOND = """
base = "first.toml"
run = "runs/second"
[sentence]
plain_teacher = "plain"
plain_share = 0.5
bag = 0.1
[[sentence.sources]]
name = "pairs"
files = ["others.txt"]
license = "CC0"
"""
SIDE_BY_SIDE = """
teacher_beside = ["other"]
plain_teacher = "plain"
plain_beside = ["more"]
plain_fitted = true
"""


def test_a_second_teacher_reads_the_plain_texts(released, monkeypatch):
    asked = {}

    def open_encoder(source, **_):
        def encode(texts):
            asked.setdefault(source, []).extend(texts)
            return np.full((len(texts), 8), 1.0 + len(source))

        return encode

    monkeypatch.setattr(line_vectors, "open_encoder", open_encoder)
    Path("second.toml").write_text(SECOND, encoding="utf-8")
    others = [t.upper() for t in Path("words.txt").read_text(encoding="utf-8").splitlines()]
    Path("others.txt").write_text("\n".join(others) + "\n", encoding="utf-8")
    line = Line(load_config(Path("second.toml")))
    run_line(line, UNTIL_SENTENCE)
    corpus = {t for f in line.folder("01-corpus").glob("train-*.txt") for t in read_lines(f)}
    plain = set(asked["plain"])
    assert plain < corpus and len(plain) > len(corpus) / 4
    teachers = np.load(line.folder("05-vectors") / "teachers.npy")
    assert 0 < teachers.sum() < len(teachers)
    targets = line_vectors.open_targets(line)
    assert (targets.vectors(np.flatnonzero(teachers)) == 1 + len("plain")).all()
    training = json.loads((line.folder("05-sentence") / "training.json").read_text())
    assert training["corpora"][-1]["name"] == "texts of the corpus"
    assert training["teacher"].startswith(
        "words.txt (sentence vectors), plain (plain text); before"
    )
    assert training["corpora"][-1]["texts"] == len(plain)


def test_a_shared_cache_that_was_made_anew_gives_the_same_targets(released, monkeypatch):
    """Another line fills it in another order."""
    monkeypatch.setattr(
        line_vectors,
        "open_encoder",
        lambda *_, **__: (
            lambda texts: np.stack(
                [np.random.default_rng(list(t.encode())).normal(size=8) for t in texts]
            )
        ),
    )
    for name in ("03", "04"):
        text = f'base = "first.toml"\nrun = "runs/{name}"\n[sentence]\ncache = "cache-{name}"\n'
        Path(f"{name}.toml").write_text(text, encoding="utf-8")
    line = Line(load_config(Path("03.toml")))
    run_line(line, UNTIL_SENTENCE)
    every = np.arange(len(np.load(line.folder("05-vectors") / "teachers.npy")))
    before = line_vectors.open_targets(line).vectors(every)
    shutil.rmtree("cache-03")
    words = Path("words.txt").read_text(encoding="utf-8").splitlines()
    Path("words.txt").write_text("\n".join(words[::-1]) + "\n", encoding="utf-8")
    other = Line(load_config(Path("04.toml"), ["sentence.cache=cache-03"]))
    run_line(other, ["pairs", "vectors"])
    assert (line_vectors.open_targets(line).vectors(every) == before).all()


WIDTHS = {"words.txt": 8, "other": 5, "plain": 6, "more": 3}


def test_teachers_side_by_side_and_one_brought_to_them(released, monkeypatch):
    """What the plain text's teachers say of the student's side tells what the others would say."""
    chance = np.random.default_rng(7)
    facts = {t: chance.normal(size=4) for t in Path("words.txt").read_text("utf-8").splitlines()}
    views = {name: chance.normal(size=(4, width)) for name, width in WIDTHS.items()}

    def open_encoder(source, **_):
        def encode(texts):
            said = np.stack([facts.get(t.lower(), np.ones(4)) for t in texts]) @ views[source]
            return said / np.linalg.norm(said, axis=1, keepdims=True)

        return encode

    monkeypatch.setattr(line_vectors, "open_encoder", open_encoder)
    text = SECOND.replace('plain_teacher = "plain"\n', SIDE_BY_SIDE)
    Path("second.toml").write_text(text, encoding="utf-8")
    others = [t.upper() for t in facts]
    Path("others.txt").write_text("\n".join(others) + "\n", encoding="utf-8")
    line = Line(load_config(Path("second.toml")))
    run_line(line, UNTIL_SENTENCE)
    targets = line_vectors.open_targets(line)
    assert targets.width == 13
    texts = list(read_lines(line.folder("05-pairs") / "teacher.txt"))
    plain = np.load(line.folder("05-vectors") / "teachers.npy").astype(bool)
    vectors = targets.vectors(np.arange(len(texts))).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
    expected = np.concatenate(
        [open_encoder(name)(texts) for name in ("words.txt", "other")], axis=1
    ) / np.sqrt(2)
    np.testing.assert_allclose(vectors[~plain], expected[~plain], atol=2e-3)
    # Nine numbers of two encoders, both of length 1, hold the four that everything depends on.
    assert (vectors[plain] * expected[plain]).sum(1).mean() > 0.9
    training = json.loads((line.folder("05-sentence") / "training.json").read_text("utf-8"))
    assert training["teacher"].startswith(
        "words.txt and other (sentence vectors), plain and more (plain text); before"
    )
    assert {"other", "plain", "more"} <= set(training["lineage"])
    rotation = np.load(line.folder("05-sentence") / "rotation.npy")
    assert len(rotation) == 13


def test_encoders_of_the_students_side_stand_beside_the_teachers(released, monkeypatch):
    """A cosine is weighted between them and the teachers, who read the other side."""
    words = Path("words.txt").read_text("utf-8").splitlines()
    others = {t: f"{t} {t}" for t in words}
    Path("others.tsv").write_text(
        "en\tru\n" + "".join(f"{t}\t{o}\n" for t, o in others.items()), encoding="utf-8"
    )
    width = {"words.txt": 8, "own": 3}

    def open_encoder(source, **_):
        def encode(texts):
            said = [np.random.default_rng(list(t.encode())).normal(size=8) for t in texts]
            found = np.stack(said)[:, : width[source]]
            return found / np.linalg.norm(found, axis=1, keepdims=True)

        return encode

    monkeypatch.setattr(line_vectors, "open_encoder", open_encoder)
    pairs = 'files = ["others.tsv"]\nteacher_field = "en"\nstudent_field = "ru"'
    text = SECOND.replace(
        'plain_teacher = "plain"',
        'student_beside = ["own"]\nstudent_beside_share = 0.36\ncache = "fresh"',
    ).replace('files = ["others.txt"]', pairs)
    Path("second.toml").write_text(text, encoding="utf-8")
    line = Line(load_config(Path("second.toml")))
    run_line(line, UNTIL_SENTENCE)
    read, own = (
        list(read_lines(line.folder("05-pairs") / f"{side}.txt")) for side in ("teacher", "student")
    )
    assert any(a != b for a, b in zip(read, own, strict=True))
    targets = line_vectors.open_targets(line)
    assert targets.width == 11
    expected = np.concatenate(
        [open_encoder("words.txt")(read) * 0.8, open_encoder("own")(own) * 0.6], axis=1
    )
    np.testing.assert_allclose(targets.vectors(np.arange(len(read))), expected, atol=2e-3)
    training = json.loads((line.folder("05-sentence") / "training.json").read_text("utf-8"))
    assert training["teacher"].startswith("words.txt and own (sentence vectors); before")
    assert "own" in training["lineage"]
    assert len(np.load(line.folder("05-sentence") / "rotation.npy")) == 11
    changes = ["run=runs/centred", "sentence.student_beside_centred=true"]
    centred = Line(load_config(Path("second.toml"), changes))
    run_line(centred, UNTIL_SENTENCE)
    said = open_encoder("own")(own)
    said -= said.mean(0)
    said *= 0.6 / np.linalg.norm(said, axis=1, keepdims=True)
    found = line_vectors.open_targets(centred).vectors(np.arange(len(read)))
    np.testing.assert_allclose(found[:, 8:], said, atol=2e-3)
    np.testing.assert_allclose(found[:, :8], expected[:, :8], atol=2e-3)
