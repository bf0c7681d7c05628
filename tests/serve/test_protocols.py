"""The protocols, as their clients speak them."""

import base64
import json
import struct

import numpy as np
import pytest

TEXTS = ["Привет, мир", "добрый день", "", "дождь " * 50]


def test_openai_vectors_are_those_of_encode(client, model):
    answer = client.post("/v1/embeddings", json={"input": TEXTS, "model": "tiny", "user": "x"})
    assert answer.status_code == 200
    body = answer.json()
    found = np.array([d["embedding"] for d in body["data"]], dtype=np.float32)
    assert np.array_equal(found, model.encode(TEXTS))
    assert [d["index"] for d in body["data"]] == [0, 1, 2, 3]
    assert body["object"] == "list" and body["model"] == "tiny"
    pieces = sum(len(p.ids) for p in model.read(TEXTS))
    assert body["usage"] == {"prompt_tokens": pieces, "total_tokens": pieces}
    for phase in ("tokenization", "queue", "inference", "total"):
        assert float(answer.headers[f"x-{phase}-time"]) >= 0
    assert len(answer.headers["x-request-id"]) == 16


def test_openai_single_text_base64_and_dimensions(client, model):
    body = {"input": TEXTS[0], "encoding_format": "base64", "dimensions": 4}
    [item] = client.post("/v1/embeddings", json=body).json()["data"]
    row = np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4")
    assert np.array_equal(row, model.encode(TEXTS[:1], truncate_dim=4)[0])


@pytest.mark.parametrize("dtype", ["int8", "binary", "ubinary"])
def test_openai_smaller_types(client, model, dtype):
    body = {"input": TEXTS[:2], "output_dtype": dtype}
    found = [d["embedding"] for d in client.post("/v1/embeddings", json=body).json()["data"]]
    rows = model.encode(TEXTS[:2])
    if dtype == "int8":
        assert [max(map(abs, row)) for row in found] == [127, 127]
        cosine = (np.array(found) * rows).sum(1) / np.linalg.norm(np.array(found), axis=1)
        assert cosine.min() > 0.999
    else:
        packed = np.packbits(rows > 0, axis=1).astype(int) - (128 if dtype == "binary" else 0)
        assert found == packed.tolist()


def test_openai_refuses_token_ids_and_says_why(client):
    for given in ([1, 2, 3], [[1, 2], [3]]):
        answer = client.post("/v1/embeddings", json={"input": given})
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert "token ids" in error["message"] and error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"input": []}, 400, "no texts"),
        ({}, 400, "input"),
        ({"input": "мир", "dimensions": 9}, 400, "expected 1 to 8"),
        ({"input": "мир", "dimensions": 0}, 400, "greater than or equal to 1"),
        ({"input": "мир", "model": "other"}, 404, "'other' is not served"),
        ({"input": ["мир", None]}, 400, "input[1]: Input should be a valid string"),
        ({"input": 5}, 400, "input: Input should be a valid string; input: Input should be a"),
        ({"input": "мир", "encoding_format": "hex"}, 400, "encoding_format"),
        (
            {"input": "мир", "encoding_format": "base64", "output_dtype": "int8"},
            400,
            "ask for encoding_format 'float'",
        ),
    ],
)
def test_openai_errors(client, body, status, said):
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_openai_partial_answers(opened, model):
    client = opened(max_item_chars=20)
    texts = ["мир", "я" * 21, "день"]
    assert client.post("/v1/embeddings", json={"input": texts}).status_code == 413
    body = client.post("/v1/embeddings", json={"input": texts, "partial": True}).json()
    assert [d["object"] for d in body["data"]] == ["embedding", "error", "embedding"]
    assert body["data"][1]["error"]["code"] == 413
    assert body["data"][2]["embedding"] == pytest.approx(model.encode(["день"])[0].tolist())
    only = client.post("/v1/embeddings", json={"input": texts[1:2], "partial": True}).json()
    assert only["data"][0]["index"] == 0 and only["usage"]["total_tokens"] == 0
    assert body["data"][1]["error"]["message"].startswith("text 1: 21 characters")


def test_openai_partial_answers_where_nothing_is_cut(opened):
    texts = ["мир", "день " * 100, "день"]
    body = {"input": texts, "partial": True}
    found = opened(auto_truncate=False).post("/v1/embeddings", json=body).json()["data"]
    assert [d["object"] for d in found] == ["embedding", "error", "embedding"]
    assert found[1]["error"] == {
        "message": "text 1: more than 32 pieces: shorten it or let it be cut",
        "code": 413,
    }


def test_openai_models(client):
    assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["tiny"]
    assert client.get("/v1/models/tiny").json()["object"] == "model"
    assert client.get("/v1/models/other").status_code == 404


def test_embed_as_text_embeddings_inference(client, model):
    found = client.post("/embed", json={"inputs": TEXTS}).json()
    assert np.array_equal(np.array(found, np.float32), model.encode(TEXTS))
    body = {"inputs": "мир", "normalize": False, "dimensions": 4}
    [row] = client.post("/embed", json=body).json()
    expected = model.encode(["мир"], normalize=False, truncate_dim=4)[0]
    assert row == pytest.approx(expected.tolist(), abs=1e-6)


def test_long_texts_are_cut_unless_asked_otherwise(opened):
    long = "дождь " * 50
    client = opened()
    assert client.post("/embed", json={"inputs": long}).status_code == 200
    answer = client.post("/embed", json={"inputs": ["мир", long], "truncate": False})
    assert answer.status_code == 413
    assert "text 1: more than 32 pieces" in answer.json()["error"]
    strict = opened(auto_truncate=False)
    assert strict.post("/embed", json={"inputs": long}).status_code == 413
    assert strict.post("/embed", json={"inputs": long, "truncate": True}).status_code == 200


def test_predict_reads_three_shapes(client, model):
    def expected(texts):
        return [
            [{"label": k, "score": pytest.approx(v, abs=1e-6)} for k, v in p.scores.items()]
            for p in model.classify(texts)
        ]

    def ask(inputs):
        return client.post("/predict", json={"inputs": inputs}).json()

    assert ask("мир") == expected(["мир"])[0]
    assert ask(["мир", "и день"]) == expected([("мир", "и день")])[0]
    assert ask([["мир"], ["день"]]) == expected(["мир", "день"])
    assert ask([["мир", "и день"], ["день"]]) == expected([("мир", "и день"), "день"])
    raw = client.post("/predict", json={"inputs": "мир", "raw_scores": True}).json()
    assert [s["label"] for s in raw] == [s["label"] for s in ask("мир")]
    assert sum(s["score"] for s in raw) != pytest.approx(1, abs=1e-3)
    answer = client.post("/predict", json={"inputs": [["a", "b", "c"]]})
    assert answer.status_code == 422 and "3 texts, expected one or a pair" in answer.text
    assert client.post("/predict", json={"inputs": []}).status_code == 400


def test_predict_without_labels_is_refused(opened, tmp_path):
    from rubert_lite import load
    from tests.rubert_lite.conftest import build

    client = opened(load(build(tmp_path / "plain"), lanes=1))
    answer = client.post("/predict", json={"inputs": "мир"})
    assert answer.status_code == 422 and "no labels" in answer.json()["error"]
    assert "classifier" not in client.get("/info").json()["model_type"]


def test_a_classifier_of_pairs_refuses_texts(opened, tmp_path):
    from rubert_lite import load
    from tests.rubert_lite.conftest import build

    package = build(tmp_path / "pairs", labels=("a", "b"), with_types=True, inputs="pairs")
    client = opened(load(package, lanes=1))
    assert client.post("/predict", json={"inputs": [["мир", "день"]]}).status_code == 200
    answer = client.post("/predict", json={"inputs": [["мир", "день"], ["мир"]]})
    assert answer.status_code == 422
    assert "texts[1]: a string, expected a pair" in answer.json()["error"]


def test_tokenize_gives_places(client):
    [spans] = client.post("/tokenize", json={"inputs": "Привет,  мир"}).json()
    assert [(s["text"], s["start"], s["stop"], s["special"]) for s in spans] == [
        ("[CLS]", None, None, True),
        ("Привет", 0, 6, False),
        (",", 6, 7, False),
        ("мир", 9, 12, False),
        ("[SEP]", None, None, True),
    ]
    bare = client.post("/tokenize", json={"inputs": ["мир"], "add_special_tokens": False}).json()
    assert [s["text"] for s in bare[0]] == ["мир"]


def test_info_health_and_metrics(client, model):
    info = client.get("/info").json()
    assert info["model_id"] == "tiny" and info["max_input_length"] == 32
    assert info["model_type"]["classifier"]["label2id"] == {"добро": 0, "зло": 1, "ничто": 2}
    for path in ("/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200
    client.post("/embed", json={"inputs": "мир"})
    client.post("/embed", json={"inputs": 3})
    text = client.get("/metrics").text
    assert 'rubert_lite_requests_total{route="/embed",status="200"} 1.0' in text
    assert 'rubert_lite_requests_total{route="/embed",status="422"} 1.0' in text
    assert 'rubert_lite_phase_duration_seconds_count{phase="inference"} 1.0' in text
    assert "rubert_lite_batch_texts_count 1.0" in text


def test_metrics_docs_and_page_can_be_switched_off(opened):
    shut = opened(metrics=False, docs=False, page=False)
    for path in ("/metrics", "/openapi.json", "/"):
        assert shut.get(path).status_code == 404
    page = opened().get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http://" not in page.text and "https://" not in page.text


def infer(client, tensor, path="/v2/models/tiny/infer", **more):
    return client.post(path, json={"inputs": [tensor], **more})


def test_open_inference_protocol_in_json(client, model):
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": TEXTS[:2]}
    outputs = [{"name": "sentence_embedding"}, {"name": "pooled"}]
    body = infer(client, tensor, id="7", outputs=outputs).json()
    assert (body["id"], body["model_name"], body["model_version"]) == ("7", "tiny", "1")
    for output, normalize in zip(body["outputs"], (True, False), strict=True):
        found = np.array(output["data"], np.float32).reshape(output["shape"])
        assert np.array_equal(found, model.encode(TEXTS[:2], normalize=normalize))
    pair = {"name": "text", "shape": [1, 2], "datatype": "BYTES", "data": [["мир", "и день"]]}
    [logits] = infer(client, pair, outputs=[{"name": "logits"}]).json()["outputs"]
    expected = model.compute(model.read([("мир", "и день")], pairs=True), "logits")
    assert logits["shape"] == [1, 3] and logits["data"] == pytest.approx(expected[0].tolist())
    path = "/v2/models/tiny/versions/1/infer"
    assert infer(client, tensor, path).status_code == 200
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    described = client.get("/v2/models/tiny").json()
    assert {o["name"]: o["shape"] for o in described["outputs"]}["logits"] == [-1, 3]
    assert client.get("/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}
    assert client.get("/v2/models/tiny/versions/2/ready").status_code == 404


def test_open_inference_protocol_in_binary(client, model):
    raw = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in TEXTS[:2])
    tensor = {
        "name": "text",
        "shape": [2],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {
        "inference-header-content-length": str(len(head)),
        "content-type": "application/octet-stream",
    }

    def ask(data, **changes):
        return client.post("/v2/models/tiny/infer", content=data, headers=headers | changes)

    answer = ask(head + raw)
    size = int(answer.headers["inference-header-content-length"])
    described = json.loads(answer.content[:size])["outputs"][0]
    rows = np.frombuffer(answer.content[size:], "<f4").reshape(described["shape"])
    assert np.array_equal(rows, model.encode(TEXTS[:2]))
    for data, said in (
        (head + raw[:-1], "the body holds"),
        (head.replace(b'"shape": [2]', b'"shape": [3]') + raw, "the shape [3] says 3"),
    ):
        broken = ask(data, **{"inference-header-content-length": str(len(head))})
        assert broken.status_code == 400 and said in broken.json()["error"]
    for given in ("99999", "9" * 5000):  # Python reads no numbers of thousands of digits
        assert ask(head, **{"inference-header-content-length": given}).status_code == 400


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"datatype": "INT64"}, "expected BYTES"),
        ({"shape": [3]}, "2 texts, the shape [3] says 3"),
        ({"shape": [-1]}, "shape [-1]"),
        ({"shape": [1, 2]}, "only logits read pairs"),
        ({"data": ["мир", 3]}, "holds a int"),
        ({"shape": ["x"], "name": 5}, "inputs[0].name: Input should be a valid string; inputs[0]"),
    ],
)
def test_open_inference_errors(client, change, said):
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": TEXTS[:2]} | change
    answer = infer(client, tensor)
    assert answer.status_code == 400 and said in answer.json()["error"]
    good = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["мир"]}
    wrong = infer(client, good, outputs=[{"name": "other"}])
    assert wrong.status_code == 400 and "no 'other'" in wrong.json()["error"]
