"""Whatever comes in, the server answers it and lives: 10,000 changed bodies, and the schema."""

import json
import random

import pytest

BODIES = {
    "/v1/embeddings": {"input": ["Привет, мир", "день"], "model": "tiny", "dimensions": 4},
    "/embed": {"inputs": ["мир", "день"], "normalize": True, "truncate": False},
    "/predict": {"inputs": [["мир", "и день"], ["день"]], "raw_scores": False},
    "/similarity": {"inputs": {"source_sentence": "мир", "sentences": ["день", "мир"]}},
    "/tokenize": {"inputs": "мир", "add_special_tokens": True},
    "/v2/models/tiny/infer": {
        "id": "1",
        "inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["мир", "день"]}],
        "outputs": [{"name": "logits"}],
    },
}
VALUES = [
    None, True, 0, -1, 2**63, 2**70, 1e308, 0.1, "", "мир", "\0", "\ufffe", "я" * 3000, [], [[]],
    {}, [None], [1], ["a", 1], [["a", "b", "c"]], {"a": {"b": []}}, "\U0010ffff" * 50,
]  # fmt: skip


def changed_values(value, chance):
    """Replace, drop or double one part of a JSON value."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.2:
        return chance.choice(VALUES)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = chance.choice(keys)
    copy = dict(value) if isinstance(value, dict) else list(value)
    kind = chance.random()
    if kind < 0.15:
        del copy[key]
    elif kind < 0.25 and isinstance(copy, list):
        copy.append(copy[key])
    elif kind < 0.35 and isinstance(copy, dict):
        copy[chance.choice(["x", "", "input", "inputs", "ключ"])] = chance.choice(VALUES)
    else:
        copy[key] = changed_values(copy[key], chance)
    return copy


def changed_bytes(data, chance):
    """Change, insert or drop some bytes."""
    data = bytearray(data)
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(len(data))
        kind = chance.randrange(3)
        if kind == 0:
            data[place] = chance.randrange(256)
        elif kind == 1:
            data[place:place] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 9)))
        elif len(data) > 9:
            del data[place : place + chance.randrange(1, 9)]
    return bytes(data)


@pytest.mark.slow
def test_ten_thousand_changed_bodies_give_no_5xx(client):
    chance = random.Random(0)
    statuses: dict[int, int] = {}
    for number in range(10_000):
        path = chance.choice(list(BODIES))
        body = BODIES[path]
        for _ in range(chance.randrange(1, 4)):
            body = changed_values(body, chance)
        data = json.dumps(body, ensure_ascii=bool(number % 2)).encode("utf-8", "surrogatepass")
        headers = {}
        if chance.random() < 0.5:
            data = changed_bytes(data, chance)
        if path.endswith("infer") and chance.random() < 0.3:
            headers["inference-header-content-length"] = str(chance.randrange(-1, len(data) + 2))
        answer = client.post(path, content=data, headers=headers)
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, (path, data)
    assert statuses[200] > 100 and sum(statuses.values()) == 10_000
    assert client.post("/embed", json={"inputs": "мир"}).status_code == 200


@pytest.mark.slow
def test_the_schema_holds(client):
    """Schemathesis makes requests out of the OpenAPI document and checks what comes back."""
    import schemathesis
    from hypothesis import HealthCheck, given, settings

    schema = schemathesis.openapi.from_asgi("/openapi.json", client.app)
    checks = (
        schemathesis.checks.not_a_server_error,
        schemathesis.checks.status_code_conformance,
        schemathesis.checks.content_type_conformance,
        schemathesis.checks.response_schema_conformance,
    )

    tested = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=60,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case):
            case.call_and_validate(checks=checks)

        ask()
        tested += 1
    assert tested >= 20
