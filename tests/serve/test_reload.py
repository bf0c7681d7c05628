"""Models that are swapped while requests are under way, and models that compute no numbers."""

from dataclasses import replace

import numpy as np
import pytest

from rubert_lite import load
from rubert_lite.errors import PackageError
from rubert_lite.package import ModelPackage, seal
from serve.loading import open_model
from serve.settings import Settings
from tests.rubert_lite.conftest import HIDDEN, PIECES, TAGS, build

TEXTS = ["мир", "добрый день"]


@pytest.fixture
def other(tmp_path):
    """A model of another name, other labels and other vectors."""
    rows = np.random.default_rng(8).normal(size=(len(PIECES), HIDDEN))
    path = build(tmp_path / "other", labels=("ничто", "зло", "добро"), with_types=True, rows=rows)
    seal(path, replace(ModelPackage.open(path).manifest, name="other", version="2"))
    return load(path, lanes=1)


@pytest.fixture
def swapping(opened, monkeypatch, other):
    """A client of a server that is reloaded as soon as anything is computed."""
    client = opened()
    real = client.service.scheduler.compute

    async def compute(*arguments, **options):
        found = await real(*arguments, **options)
        client.service.model = other
        return found

    monkeypatch.setattr(client.service.scheduler, "compute", compute)
    return client


def test_labels_are_those_of_the_model_that_computed(swapping, model):
    found = swapping.post("/predict", json={"inputs": "мир", "raw_scores": True}).json()
    [logits] = model.compute(model.read(["мир"], pairs=True), "logits")
    expected = {k: pytest.approx(v) for k, v in zip(model.labels, logits.tolist(), strict=True)}
    assert {s["label"]: s["score"] for s in found} == expected


def test_vectors_have_the_name_of_the_model_that_computed(swapping, model):
    body = swapping.post("/v1/embeddings", json={"input": TEXTS, "model": "tiny"}).json()
    found = np.array([d["embedding"] for d in body["data"]], dtype=np.float32)
    assert np.array_equal(found, model.encode(TEXTS)) and body["model"] == "tiny"
    assert swapping.post("/v1/embeddings", json={"input": TEXTS}).json()["model"] == "other"


def test_outputs_are_all_of_one_model(swapping, model):
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": TEXTS}
    outputs = [{"name": "pooled"}, {"name": "logits"}, {"name": "sentence_embedding"}]
    body = {"inputs": [tensor], "outputs": outputs}
    told = swapping.post("/v2/models/tiny/infer", json=body).json()
    assert (told["model_name"], told["model_version"]) == ("tiny", "1")
    pooled, logits, vectors = (
        np.array(o["data"], np.float32).reshape(o["shape"]) for o in told["outputs"]
    )
    assert np.array_equal(pooled, model.encode(TEXTS, normalize=False))
    assert np.array_equal(vectors, model.encode(TEXTS))
    expected = [model.compute([p], "logits")[0] for p in model.read(TEXTS, pairs=True)]
    assert np.allclose(logits, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        ("classification", ("добро", "зло", "ничто")),
        ("token-classification", TAGS),
        ("question-answering", ("start", "end")),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_head_of_no_numbers_is_not_served(opened, model, tmp_path, task, labels, value):
    head = np.random.default_rng(1).normal(size=(HIDDEN, len(labels)))
    head[:, -1] = value  # one label is enough
    path = build(tmp_path / "tiny", labels=labels, task=task, head=head, with_types=True)
    said = f"{path}: the logits of its {task} head are not finite"
    with pytest.raises(PackageError, match=said):
        open_model(Settings(model=str(path), lanes=1))
    service = opened(**{"model": str(path), "lanes": 1}).service
    with pytest.raises(PackageError, match=said):
        service.reload()
    assert service.model is model
