"""Sessions and lanes."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from rubert_lite import Model, load
from rubert_lite.engine import Batch, Engine, cgroup_cpus, usable_cpus
from rubert_lite.errors import PackageError, ProviderError


@pytest.fixture(scope="module")
def graph(shared_package: Path) -> bytes:
    return (shared_package / "fast.fp32.onnx").read_bytes()


def batches(count: int) -> list[Batch]:
    return [
        Batch(np.array([i]), {"input_ids": np.full((1, i % 5 + 1), i % 20)}) for i in range(count)
    ]


def test_engine_tells_what_the_graph_is(graph: bytes) -> None:
    engine = Engine(graph, lanes=1)
    assert engine.inputs == ("input_ids",)
    assert dict(engine.outputs) == {
        "pooled": ["batch", 8],
        "sentence_embedding": ["batch", 8],
    }
    assert engine.metadata["rubert_lite.vocab_size"].isdigit()


def test_session_has_one_thread_and_does_not_spin(graph: bytes) -> None:
    options = Engine(graph, lanes=4)._live.session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert not options.enable_mem_pattern
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_results_come_in_the_order_of_the_batches(graph: bytes, lanes: int, count: int) -> None:
    found = list(Engine(graph, lanes=lanes).run_all(batches(count), "pooled"))
    assert [int(indices[0]) for indices, _ in found] == list(range(count))
    engine = Engine(graph, lanes=1)
    for batch, (_, rows) in zip(batches(count), found, strict=True):
        assert np.array_equal(rows, engine.run(batch, "pooled"))


def test_lanes_take_few_batches_ahead(graph: bytes) -> None:
    taken = 0

    def stream() -> Iterator[Batch]:
        nonlocal taken
        for batch in batches(1000):
            taken += 1
            yield batch

    results = Engine(graph, lanes=2).run_all(stream(), "pooled")
    next(results)
    assert taken < 20
    results.close()  # type: ignore[attr-defined]


def test_lanes_work_at_the_same_time(graph: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(graph, lanes=3)
    together = threading.Barrier(3, timeout=30)  # breaks unless three runs are under way at once

    def run(batch: Batch, output: str) -> Any:
        together.wait()
        return np.zeros((1, 8), dtype=np.float32)

    monkeypatch.setattr(engine, "run", run)
    assert len(list(engine.run_all(batches(6), "pooled"))) == 6


def test_id_outside_the_rows_is_a_named_error(graph: bytes) -> None:
    with pytest.raises(PackageError, match=r"cannot compute a batch of \(1, 1\)"):
        Engine(graph, lanes=1).run(
            Batch(np.array([0]), {"input_ids": np.array([[10**6]])}), "pooled"
        )


@pytest.mark.parametrize("data", [b"", b"not a graph", b"\x08\x0a" * 50])
def test_unreadable_graph(data: bytes) -> None:
    with pytest.raises(PackageError, match="onnxruntime cannot load it"):
        Engine(data, lanes=1)


def test_external_data_is_refused_even_where_it_lies(
    shared_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(shared_package / "fast.fp32.onnx")
    onnx.save(
        model,
        tmp_path / "split.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=1000,  # the rows; shapes are read from the small ones
        convert_attribute=False,
    )
    monkeypatch.chdir(tmp_path)
    data = (tmp_path / "split.onnx").read_bytes()
    onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])  # it looks there
    with pytest.raises(PackageError, match="its weights are in another file"):
        Engine(data, lanes=1)


def test_without_onnxruntime_the_remedy_is_named(
    graph: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ProviderError, match=r"pip install -e '.\[cpu\]'"):
        Engine(graph)


def test_unknown_device(graph: bytes) -> None:
    with pytest.raises(ProviderError, match="device 'tpu': expected one of cpu, cuda"):
        Engine(graph, device="tpu")  # type: ignore[arg-type]


def test_cuda_that_is_not_built_in_is_refused(
    graph: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderError, match=r"pip install -e '.\[gpu\]'"):
        Engine(graph, device="cuda")


def test_cuda_that_does_not_start_is_refused(graph: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    # What onnxruntime does without a driver: it goes on with the CPU.
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda data, options, providers: real(data, options, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(ProviderError, match="nothing falls back to the CPU silently"):
        Engine(graph, device="cuda")


def test_many_threads_share_a_model(shared_package: Path, model: Model) -> None:
    texts = [f"{word} {'мир ' * (i % 7)}" for i in range(60) for word in ("Привет", "день")]
    expected = model.encode(texts)
    shared = load(shared_package, lanes=2)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: shared.encode(texts), range(24)))
    for vectors in found:
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


def _encode_in_child(model: Model, texts: list[str], connection: Any) -> None:
    connection.send_bytes(model.encode(texts).tobytes())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_computes_the_same(shared_package: Path) -> None:
    model = load(shared_package, lanes=2)
    texts = [f"Привет {'мир ' * (i % 9)}" for i in range(100)]
    expected = model.encode(texts)  # the threads of the parent are running
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        receiving, sending = context.Pipe(duplex=False)
        child = context.Process(target=_encode_in_child, args=(model, texts, sending))
        child.start()
        try:
            assert receiving.poll(30), "the child hangs"
            assert receiving.recv_bytes() == expected.tobytes()
            child.join(30)
            assert child.exitcode == 0
        finally:
            child.kill()
    assert np.array_equal(model.encode(texts), expected)


def test_cuda_does_not_survive_a_fork(graph: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(graph, lanes=1)
    monkeypatch.setattr(engine, "_device", "cuda")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(ProviderError, match="does not survive a fork"):
        engine.run(batches(1)[0], "pooled")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "5000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ],
)
def test_cgroup_quota(tmp_path: Path, files: dict[str, str], expected: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cgroup_cpus(tmp_path) == expected


def test_usable_cpus_is_the_smaller_of_affinity_and_quota(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for quota, expected in ((None, 8), (3, 3), (64, 8)):
        monkeypatch.setattr("rubert_lite.engine.cgroup_cpus", lambda _, q=quota: q)
        assert usable_cpus() == expected
