"""What only a GPU shows: skipped where onnxruntime has no CUDA provider."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from export.pack import export
from export.sample import TEXTS
from rubert_lite import Model, load
from tests.export.conftest import write_checkpoint

pytestmark = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="this onnxruntime has no CUDA provider",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cuda")
    export(write_checkpoint(root / "checkpoint"), root / "package", variants=("fp32", "fp16"))
    return root / "package"


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder, device="cuda")


def test_vectors_are_those_of_the_cpu(model: Model, folder: Path) -> None:
    expected = load(folder, variant="fp32").encode(TEXTS)
    found = model.encode(TEXTS)
    assert model.variant == "fp16"
    assert (found * expected).sum(1).min() > 0.999


def test_small_batches_are_replayed_and_agree(model: Model) -> None:
    together = model.encode(TEXTS)
    for _ in range(3):
        alone = np.concatenate([model.encode([text]) for text in TEXTS])
        assert (alone * together).sum(1).min() > 0.999
    replay = model._engine._live.replay
    assert replay is not None, "the session was opened without CUDA graphs"
    assert replay._works and replay._slots
