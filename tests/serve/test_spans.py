"""Entities, answers and cosines over HTTP, and a client of hosted pipelines."""

from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import InferenceClient

from rubert_lite import Model, load
from serve.loading import open_model
from serve.settings import Settings
from tests.rubert_lite.conftest import build_answerer, build_tagger

from .running import serving

TEXTS = ["Ну, до\u0301брый  день!", "", "мир " * 400, "добрый день и мир"]
ASKED = [
    {"question": "мир?", "context": "вот до\u0301брый  день. " + "мир, " * 90},
    {"question": "мир " * 400, "context": "вот добрый день"},
    {"question": "мир", "context": ""},
]


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    return load(build_tagger(tmp_path_factory.mktemp("models") / "tiny"), lanes=1)


@pytest.fixture(scope="module")
def answerer(tmp_path_factory):
    return load(build_answerer(tmp_path_factory.mktemp("models") / "tiny"), lanes=1)


@pytest.mark.parametrize(("build", "call"), [(build_tagger, "tag"), (build_answerer, "answer")])
def test_a_server_tries_what_its_model_is_for(build, call, tmp_path, monkeypatch):
    """Before it says that it is ready."""
    path, tried, real = build(tmp_path / "tiny"), [], getattr(Model, call)
    monkeypatch.setattr(Model, call, lambda *a, **k: tried.append(call) or real(*a, **k))
    open_model(Settings(model=str(path), lanes=1))
    assert tried == [call]


def test_entities_are_those_of_tag(opened, tagger):
    client = opened(tagger)
    answer = client.post("/tag", json={"inputs": TEXTS})
    assert answer.status_code == 200
    assert answer.json() == [
        [
            {
                "entity_group": e.label,
                "score": pytest.approx(e.score, abs=1e-6),
                "word": e.text,
                "start": e.start,
                "end": e.end,
            }
            for e in entities
        ]
        for entities in tagger.tag(TEXTS)
    ]
    assert [len(found) for found in answer.json()] == [1, 0, 400, 2]
    # 400 words in windows of 14, half of each shared, and the specials of each
    assert int(answer.headers["x-compute-tokens"]) > 800
    for phase in ("tokenization", "queue", "inference", "total"):
        assert float(answer.headers[f"x-{phase}-time"]) >= 0
    one = client.post("/tag", json={"inputs": TEXTS[0]}).json()
    assert one == answer.json()[0] and one[0]["word"] == "до\u0301брый  день"


def test_answers_are_those_of_answer(opened, answerer):
    client = opened(answerer)
    rows = client.post("/answer", json={"inputs": ASKED}).json()
    expected = answerer.answer([(a["question"], a["context"]) for a in ASKED])
    for row, answer in zip(rows, expected, strict=True):
        assert (row["answer"], row["start"], row["end"]) == (answer.text, answer.start, answer.end)
        assert row["score"] == pytest.approx(answer.score, abs=1e-6)
    assert [row["answer"] for row in rows] == ["до\u0301брый  день", "добрый день", ""]
    assert client.post("/answer", json={"inputs": ASKED[1]}).json() == rows[1]


def test_cosines_are_those_of_the_vectors(client, model):
    sentences = ["добрый день", "мир", "", "дождь " * 50]
    body = {"inputs": {"source_sentence": "мир", "sentences": sentences}}
    answer = client.post("/similarity", json=body)
    expected = model.encode(sentences) @ model.encode(["мир"])[0]
    assert np.abs(np.array(answer.json()) - expected).max() < 1e-6
    assert answer.json()[1] == pytest.approx(1, abs=1e-6)
    whole = client.post("/similarity", json=body | {"parameters": {"truncate": False}})
    assert (whole.status_code, whole.json()["error"][:7]) == (413, "text 4:")


@pytest.mark.parametrize(
    ("path", "inputs", "status", "said"),
    [
        ("/tag", [], 400, "no texts"),
        ("/tag", ["мир", 3], 422, "inputs[1]: Input should be a valid string"),
        ("/answer", ASKED[:1], 422, "a model for token-classification, answer needs one for"),
        ("/answer", [{"question": "а"}], 422, "inputs[0].context: Field required"),
        ("/answer", ["а"], 422, "inputs[0]: Input should be an object"),
        ("/similarity", {"source_sentence": "а", "sentences": []}, 422, "inputs.sentences: List"),
        ("/similarity", ["а"], 422, "inputs: Input should be an object"),
        ("/tag", ["м" * 100_001], 413, "text 0: 100001 characters"),
    ],
)
def test_refusals_say_where(opened, tagger, path, inputs, status, said):
    answer = opened(tagger).post(path, json={"inputs": inputs})
    body = answer.json()
    assert answer.status_code == status and said in body["error"]
    assert body["error_type"] in ("Validation", "Empty")


def test_other_models_say_what_they_are_for(client):
    answer = client.post("/tag", json={"inputs": "мир"})
    assert answer.status_code == 422
    assert "tiny: a model for classification, tag needs one" in answer.json()["error"]


def test_the_model_says_what_it_can(opened, tagger, answerer):
    kind = opened(tagger).get("/info").json()["model_type"]
    assert kind["token-classification"] == {"labels": ["B-DAY", "B-MAN", "I-DAY", "O"]}
    assert "question-answering" in opened(answerer).get("/info").json()["model_type"]


def test_a_full_line_takes_no_windows(opened, tagger):
    client = opened(tagger, max_queue_tokens=1024)
    answer = client.post("/tag", json={"inputs": "мир " * 2000})
    assert answer.status_code == 413 and "pieces, expected at most 1024" in answer.json()["error"]
    assert client.post("/tag", json={"inputs": "мир"}).status_code == 200


def test_a_client_of_hosted_pipelines_reads_them(tmp_path: Path, package: Path) -> None:
    client = InferenceClient()
    with serving(build_tagger(tmp_path / "tagger")) as running:
        text = "вот до\u0301брый  день, мир"
        found = client.token_classification(text, model=f"{running.url}/tag")
        assert [(e.entity_group, text[e.start : e.end]) for e in found] == [
            ("DAY", "до\u0301брый  день"),
            ("MAN", "мир"),
        ]
    with serving(build_answerer(tmp_path / "answerer")) as running:
        told = client.question_answering(**ASKED[1], model=f"{running.url}/answer")
        assert told.answer == "добрый день" and told.start == 4 and told.score > 0.5
    with serving(package) as running:
        url = f"{running.url}/similarity"
        cosines = client.sentence_similarity("мир", other_sentences=["мир", "день"], model=url)
        assert cosines[0] == pytest.approx(1, abs=1e-6) and cosines[1] < 1
