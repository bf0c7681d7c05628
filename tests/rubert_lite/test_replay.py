"""Buffers that a GPU would replay, bound on the CPU: what they compute, not how fast."""

import logging
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from rubert_lite import replay as module
from rubert_lite.engine import Batch, Engine
from rubert_lite.replay import MOST_PIECES, MOST_ROWS, Replay


@pytest.fixture(scope="module")
def session(shared_package: Path) -> onnxruntime.InferenceSession:
    path = shared_package / "fast.fp32.onnx"
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def feeds(rows: int, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"input_ids": np.random.default_rng(seed).integers(0, 20, (rows, length))}


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8])
def test_bound_batches_are_those_of_a_plain_run(session, rows: int) -> None:
    bound = Replay(session, "cpu")
    for seed in range(3):
        given = feeds(rows, 4, seed)
        found = bound.run(given, "pooled")
        assert found is not None and found.shape[0] == rows
        np.testing.assert_allclose(found, session.run(["pooled"], given)[0], atol=1e-6)


def test_a_result_outlives_the_next_run_of_its_shape(session) -> None:
    bound = Replay(session, "cpu")
    first = bound.run(feeds(2, 4, 1), "pooled")
    kept = first.copy()
    second = bound.run(feeds(2, 4, 2), "pooled")
    assert np.array_equal(first, kept) and not np.allclose(first, second)


def test_shapes_are_few(session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_SHAPES", 3)
    bound = Replay(session, "cpu")
    for rows in (3, 4, 3, 4):  # one shape
        assert bound.run(feeds(rows, 4), "pooled") is not None
    assert bound.run(feeds(1, 4), "pooled") is not None
    assert bound.run(feeds(1, 4), "sentence_embedding") is not None
    assert bound.run(feeds(1, 5), "pooled") is None
    assert bound.run(feeds(1, 4), "pooled") is not None


def test_large_batches_run_as_they_are(session) -> None:
    bound = Replay(session, "cpu")
    assert bound.run(feeds(MOST_ROWS + 1, 2), "pooled") is None
    assert bound.run(feeds(2, MOST_PIECES // 2 + 1), "pooled") is None


class Wrong:
    """A session whose bound runs leave other numbers than its plain ones."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session

    def run(self, outputs, given, options=None):
        return [values + 1 for values in self.session.run(outputs, given, options)]

    def __getattr__(self, name: str):
        return getattr(self.session, name)


def test_what_differs_is_never_replayed(session, caplog: pytest.LogCaptureFixture) -> None:
    bound = Replay(Wrong(session), "cpu")  # type: ignore[arg-type]  # stands in for a session
    with caplog.at_level(logging.WARNING):
        assert bound.run(feeds(1, 4), "pooled") is None
    assert "not replayed, run as they are: they differ by" in caplog.text
    assert bound.run(feeds(1, 4), "pooled") is None
    assert len(caplog.records) == 1


def test_a_provider_that_refuses_costs_no_answer(session, monkeypatch, caplog) -> None:
    bound = Replay(session, "cpu")
    assert bound.run(feeds(1, 4), "pooled") is not None
    monkeypatch.setattr(bound, "_replay", lambda *_: 1 / 0)
    assert bound.run(feeds(1, 4), "pooled") is None
    assert "division by zero" in caplog.text


def test_an_engine_on_a_gpu_computes_in_one_thread(
    shared_package: Path, session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small batches go through the buffers, large ones run as they are, and the rows agree."""
    engine = Engine((shared_package / "fast.fp32.onnx").read_bytes(), lanes=1)
    live = engine._live
    bound = Replay(session, "cpu")
    object.__setattr__(live, "replay", bound)
    monkeypatch.setattr(engine, "_device", "cuda")
    for rows in (3, 20):
        batch = Batch(np.arange(rows), feeds(rows, 6))
        expected = session.run(["pooled"], dict(batch.feeds))[0]
        np.testing.assert_allclose(engine.run(batch, "pooled"), expected, atol=1e-6)
        ((indices, found),) = engine.run_all([batch], "pooled")
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert list(indices) == list(range(rows))
    assert list(bound._slots) == [("pooled", 4, 6)]
