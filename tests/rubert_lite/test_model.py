"""encode, iter_encode, classify."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rubert_lite import InputError, Model, load
from rubert_lite.inputs import CHUNK

ANY_TEXT = st.text(
    st.one_of(st.characters(), st.sampled_from("абвдеПриветм ,.!\ud800\udfff\0\n")), max_size=60
)
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def vector(model: Model, text: str) -> Any:
    return model.encode([text])[0]


def test_vectors_are_the_normalised_means_of_rows(model: Model) -> None:
    assert model.tokenize("Привет дождь") == ["[CLS]", "Привет", "дождь", "[SEP]"]
    pooled = model.encode(["Привет дождь"], normalize=False)[0]
    assert pooled.dtype == np.float32
    parts = [model.encode([t], normalize=False)[0] for t in ("Привет", "дождь", "")]
    # [CLS] + x + [SEP] over 3, so that 3 * 3 - 2 of the bare text is the sum of all four rows.
    rows = 3 * parts[0] + 3 * parts[1] - 2 * parts[2]
    np.testing.assert_allclose(pooled, rows / 4, atol=1e-6)
    np.testing.assert_allclose(
        vector(model, "Привет дождь"), pooled / np.linalg.norm(pooled), atol=1e-6
    )


def test_pieces_are_in_the_notation_of_wordpiece(model: Model) -> None:
    assert "|".join(model.tokenize("Приветдь, мир")) == "[CLS]|Привет|##дь|,|мир|[SEP]"


def test_no_texts_are_an_empty_matrix(model: Model, classifier: Model) -> None:
    for texts in ([], (), np.array([], dtype=str)):
        found = model.encode(texts, dtype="float16")
        assert (found.shape, found.dtype) == ((0, 8), np.float16)
    assert model.encode([], truncate_dim=3).shape == (0, 3)
    assert classifier.classify([]) == []
    assert list(model.iter_encode([])) == []
    assert model.count_pieces([]) == []


def test_empty_text_is_a_text(model: Model) -> None:
    assert model.tokenize("") == ["[CLS]", "[SEP]"]
    found = model.encode(["", "мир", " \n", "\0"])
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(found[0], found[3])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_lone_surrogates_and_nul_are_read(model: Model) -> None:
    assert model.tokenize("мир\ud800") == model.tokenize("мир\ufffd")
    assert np.array_equal(vector(model, "м\0ир"), vector(model, "мир"))


def test_composed_and_decomposed_letters_are_one(model: Model) -> None:
    assert np.array_equal(vector(model, "и\u0306"), vector(model, "й"))
    assert not np.array_equal(vector(model, "й"), vector(model, "и"))


@pytest.mark.parametrize("text", ["Привет", b"bytes"])
@pytest.mark.parametrize("method", ["encode", "iter_encode", "classify", "count_pieces"])
def test_single_text_is_refused(classifier: Model, method: str, text: Any) -> None:
    with pytest.raises(InputError, match=r"pass \[text\]"):
        getattr(classifier, method)(text)


@pytest.mark.parametrize("texts", [None, 5])
def test_what_is_no_collection_is_refused(model: Model, texts: Any) -> None:
    with pytest.raises(InputError, match="expected a list of strings"):
        model.encode(texts)


def test_stream_is_for_iter_encode(model: Model) -> None:
    with pytest.raises(
        InputError, match="generator has no length: pass a list, or use iter_encode"
    ):
        model.encode(t for t in ["мир"])  # type: ignore[arg-type]
    [rows] = model.iter_encode(t for t in ["мир"])
    assert np.array_equal(rows, model.encode(["мир"]))


@pytest.mark.parametrize(
    ("wrong", "kind"), [(None, "NoneType"), (b"x", "bytes"), (3, "int"), (["a"], "list")]
)
def test_wrong_item_is_named_by_position_and_type(model: Model, wrong: Any, kind: str) -> None:
    with pytest.raises(InputError, match=rf"texts\[2\]: {kind}, expected a string"):
        model.encode(["мир", "день", wrong])
    texts = ["мир"] * (CHUNK + 5) + [wrong]
    with pytest.raises(InputError, match=rf"texts\[{CHUNK + 5}\]: {kind}"):
        model.encode(texts)


def test_errors_do_not_repeat_the_texts(model: Model) -> None:
    with pytest.raises(InputError) as caught:
        model.encode([b"secret"])  # type: ignore[list-item]
    assert "secret" not in str(caught.value)


@SHARED
@given(texts=st.lists(ANY_TEXT, max_size=12), data=st.data())
def test_vector_depends_on_its_text_alone(
    model: Model, three_lanes: Model, texts: list[str], data: st.DataObject
) -> None:
    found = model.encode(texts)
    assert np.isfinite(found).all()
    alone = [vector(model, t) for t in texts]
    np.testing.assert_allclose(found, np.reshape(alone, found.shape), atol=1e-6)
    np.testing.assert_allclose(three_lanes.encode(texts), found, atol=1e-6)
    order = data.draw(st.permutations(range(len(texts))))
    shuffled = model.encode([texts[i] for i in order])
    np.testing.assert_allclose(shuffled, found[list(order)], atol=1e-6)


@pytest.fixture(scope="module")
def three_lanes(shared_package: Path) -> Model:
    return load(shared_package, lanes=3)


@SHARED
@given(texts=st.lists(st.one_of(ANY_TEXT, st.tuples(ANY_TEXT, ANY_TEXT)), max_size=5))
def test_any_text_can_be_classified(classifier: Model, texts: list[Any]) -> None:
    for prediction in classifier.classify(texts):
        assert sum(prediction.scores.values()) == pytest.approx(1, abs=1e-5)
        assert prediction.score == max(prediction.scores.values())


def test_equal_texts_are_computed_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 0
    run = model._engine.run

    def counting(batch: Any, output: str) -> Any:
        nonlocal rows
        rows += len(batch.indices)
        return run(batch, output)

    monkeypatch.setattr(model._engine, "run", counting)
    found = model.encode(["мир", "день", "мир", "мир"])
    assert rows == 2
    assert np.array_equal(found[0], found[3])
    assert not np.array_equal(found[0], found[1])


def test_batches_have_equal_lengths_and_a_bounded_size(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    run = model._engine.run

    def watching(batch: Any, output: str) -> Any:
        shapes.append(batch.feeds["input_ids"].shape)
        return run(batch, output)

    monkeypatch.setattr(model._engine, "run", watching)
    texts = ["мир " * (i % 14) + "а" * (1 + i // 14) for i in range(700)]
    model.encode(texts)
    assert sum(rows for rows, _ in shapes) == 700
    assert all(rows * length <= 512 for rows, length in shapes)
    lengths = [length for _, length in shapes]
    assert lengths == sorted(lengths, reverse=True)


def test_chunks_of_a_stream(model: Model) -> None:
    texts = [f"мир {'а' * (i % 50)}" for i in range(2 * CHUNK + 10)]
    arrays = list(model.iter_encode(iter(texts)))
    assert [len(a) for a in arrays] == [CHUNK, CHUNK, 10]
    np.testing.assert_allclose(np.concatenate(arrays), model.encode(texts), atol=1e-6)


def test_stream_is_read_in_the_thread_of_the_caller_and_little_ahead(model: Model) -> None:
    read, threads = 0, set()

    def stream() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            threads.add(threading.get_ident())
            yield "мир"

    arrays = model.iter_encode(stream())
    for _ in range(3):
        next(arrays)
    assert read <= 5 * CHUNK
    assert threads == {threading.get_ident()}
    arrays.close()  # type: ignore[attr-defined]


def test_long_texts_come_in_smaller_chunks(model: Model) -> None:
    sizes = [len(a) for a in model.iter_encode(["мир " * 100_000] * 7)]
    assert sizes == [3, 3, 1]


def test_error_of_the_stream_reaches_the_caller(model: Model) -> None:
    def broken() -> Iterator[str]:
        yield from ["мир"] * (2 * CHUNK)
        raise LookupError("gone")

    arrays = model.iter_encode(broken())
    with pytest.raises(LookupError, match="gone"):
        list(arrays)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"truncate_dim": 0}, r"truncate_dim = 0: expected 1\.\.8"),
        ({"truncate_dim": 9}, r"truncate_dim = 9: expected 1\.\.8"),
        ({"truncate_dim": True}, "truncate_dim = True"),
        ({"truncate_dim": "4"}, "truncate_dim = '4'"),
        ({"truncate_dim": 2.0}, r"truncate_dim = 2\.0"),
        ({"dtype": "int4"}, "dtype 'int4': expected one of float32, float16"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(
    model: Model, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        model.encode(["мир"], **arguments)
    with pytest.raises(InputError, match=message):
        model.iter_encode(["мир"], **arguments)  # not only when the first array is asked for


def test_truncated_vectors_have_unit_length_again(model: Model) -> None:
    whole = model.encode(["мир", "день"])
    part = model.encode(["мир", "день"], truncate_dim=np.int64(3))  # type: ignore[arg-type]
    np.testing.assert_allclose(
        part, whole[:, :3] / np.linalg.norm(whole[:, :3], axis=1, keepdims=True), atol=1e-6
    )
    pooled = model.encode(["мир"], normalize=False)
    assert np.array_equal(model.encode(["мир"], normalize=False, truncate_dim=3), pooled[:, :3])


def test_half_precision(model: Model) -> None:
    half = model.encode(["мир"], dtype="float16")
    assert half.dtype == np.float16
    assert np.array_equal(half, model.encode(["мир"]).astype(np.float16))


def test_long_texts_are_cut_and_counted(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    fits, long = "мир " * 14, "мир " * 15
    with caplog.at_level(logging.WARNING, logger="rubert_lite"):
        found = model.encode([fits])
        assert caplog.messages == []
        again = model.encode([long, "день", long, "мир " * 5000])
    assert caplog.messages == ["3 texts were cut to 16 pieces"]
    for row in (0, 2, 3):
        np.testing.assert_allclose(again[row], found[0], atol=1e-6)
    assert model.count_pieces([fits, long, "", "Приветдь"]) == [16, 17, 2, 4]
    assert len(model.tokenize(long)) == model.max_length


def test_positions_and_cuts_are_counted_over_all_chunks(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    texts: list[Any] = ["мир"] * (3 * CHUNK)
    for position in (1, CHUNK + 1, 2 * CHUNK + 1):
        texts[position] = "мир " * 15
    with caplog.at_level(logging.WARNING, logger="rubert_lite"):
        model.encode(texts)
    assert caplog.messages == ["3 texts were cut to 16 pieces"]
    texts[2 * CHUNK + 5] = None
    with pytest.raises(InputError, match=rf"texts\[{2 * CHUNK + 5}\]: NoneType"):
        model.encode(texts)


def test_five_million_letters_and_a_megabyte(model: Model) -> None:
    found = model.encode(["а" * 5_000_000, "мир\n" * 250_000, "день"])
    assert np.array_equal(found[2], vector(model, "день"))
    assert model.tokenize("а" * 5_000_000) == ["[CLS]", "[UNK]", "[SEP]"]


def test_model_tells_what_it_is(model: Model, classifier: Model) -> None:
    assert (model.dim, model.max_length, model.lanes, model.labels) == (8, 16, 1, ())
    assert classifier.labels == ("добро", "зло", "ничто")
    assert model.package.manifest.name == "tiny"
    for name in ("dim", "labels", "max_length", "lanes", "package"):
        with pytest.raises(AttributeError):
            setattr(model, name, 1)
