"""A model package of a few kilobytes, made without torch: embedding rows, mean, norm."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, settings
from onnx import TensorProto, helper, numpy_helper

from rubert_lite import Model, load
from rubert_lite.manifest import PIECEWISE
from rubert_lite.package import Manifest, seal
from rubert_lite.wordpiece import SPECIAL_PIECES, bert_tokenizer_spec

LETTERS = "абвгдежзийклмнопрстуфхцчшщъыьэюяё.,!?-"
WORDS = ["Привет", "При", "##вет", "мир", "добрый", "день", "дождь", "##дь"]
PIECES = [*SPECIAL_PIECES, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS), "П"]
HIDDEN = 8

# The same examples in every run, however busy the machine is.
settings.register_profile(
    "house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("house")

Maker = Callable[..., Path]


def graph(
    *,
    vocab_size: int,
    labels: int,
    with_types: bool,
    metadata: dict[str, str],
    outputs: tuple[str, ...] = ("pooled", "sentence_embedding", "logits"),
    head: np.ndarray | None = None,
    rows: np.ndarray | None = None,
    on_pieces: bool = False,
) -> onnx.ModelProto:
    """Build the fast graph of the contract over random rows."""
    random = np.random.default_rng(7)

    def constant(name: str, values: Any) -> onnx.TensorProto:
        return numpy_helper.from_array(np.asarray(values), name)

    weights = [
        constant("rows", _given(rows, random, vocab_size, HIDDEN)),
        constant("axis", np.array([1])),
        constant("least", np.array(1e-12, dtype=np.float32)),
    ]
    nodes = [helper.make_node("Gather", ["rows", "input_ids"], ["embedded"])]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])]
    last = "embedded"
    if with_types:
        inputs.append(
            helper.make_tensor_value_info("token_type_ids", TensorProto.INT64, ["batch", "length"])
        )
        weights.append(constant("types", random.normal(size=(2, HIDDEN)).astype(np.float32)))
        nodes.append(helper.make_node("Gather", ["types", "token_type_ids"], ["typed"]))
        nodes.append(helper.make_node("Add", ["embedded", "typed"], ["both"]))
        last = "both"
    nodes += [
        helper.make_node("ReduceMean", [last, "axis"], ["pooled"], keepdims=0),
        helper.make_node("ReduceL2", ["pooled", "axis"], ["length_of"], keepdims=1),
        helper.make_node("Max", ["length_of", "least"], ["divisor"]),
        helper.make_node("Div", ["pooled", "divisor"], ["sentence_embedding"]),
    ]
    widths = {"pooled": HIDDEN, "sentence_embedding": HIDDEN}
    if labels:
        weights.append(constant("head", _given(head, random, HIDDEN, labels)))
        judged = last if on_pieces else "pooled"
        nodes.append(helper.make_node("MatMul", [judged, "head"], ["logits"]))
        widths["logits"] = labels
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "tiny",
            inputs,
            [
                helper.make_tensor_value_info(
                    name,
                    TensorProto.FLOAT,
                    ["batch", *(["length"] if on_pieces and name == "logits" else []), width],
                )
                for name, width in widths.items()
                if name in outputs
            ],
            weights,
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model


def _given(values: np.ndarray | None, random: np.random.Generator, *shape: int) -> np.ndarray:
    return (random.normal(size=shape) if values is None else values).astype(np.float32)


def build(
    directory: Path,
    *,
    labels: tuple[str, ...] = (),
    max_length: int = 16,
    metadata: dict[str, str] | None = None,
    pieces: list[str] = PIECES,
    task: Any = None,
    inputs: Any = "",
    **graph_changes: Any,
) -> Path:
    """Write a package to a directory and seal it."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = json.dumps(bert_tokenizer_spec(pieces), ensure_ascii=False).encode()
    (directory / "tokenizer.json").write_bytes(tokenizer)
    digest = hashlib.sha256(tokenizer).hexdigest()
    settings: dict[str, Any] = {
        "vocab_size": len(pieces),
        "labels": len(labels),
        "with_types": False,
        "metadata": {
            "rubert_lite.tokenizer_sha256": digest,
            "rubert_lite.vocab_size": str(len(pieces)),
        }
        | (metadata or {}),
    }
    if task in PIECEWISE:
        settings["on_pieces"] = True
    onnx.save(graph(**settings | graph_changes), directory / "fast.fp32.onnx")
    manifest = Manifest(
        name="tiny",
        version="1",
        license="Apache-2.0",
        teacher="none",
        task=task or ("classification" if labels else "embedding"),
        labels=labels,
        vocab_size=len(pieces),
        hidden_size=HIDDEN,
        max_length=max_length,
        pooling="mean",
        normalize=True,
        truncate_dims=(4,),
        variants={"fp32": "fast.fp32.onnx"},
        default_variant="fp32",
        tokenizer_sha256=digest,
        inputs=inputs,
    )
    seal(directory, manifest)
    return directory


TAGS = ("B-DAY", "B-MAN", "I-DAY", "O")


def rows_of(**columns: str) -> np.ndarray:
    """Rows whose first columns point at a label each; all other pieces at O."""
    rows = np.zeros((len(PIECES), HIDDEN))
    rows[:, TAGS.index("O")] = 5
    for piece, label in columns.items():
        rows[PIECES.index(piece)] = 0
        rows[PIECES.index(piece), TAGS.index(label)] = 9
    return rows


def build_tagger(directory: Path) -> Path:
    """Write a package to which добрый день is a DAY and мир a MAN."""
    rows = rows_of(добрый="B-DAY", день="I-DAY", мир="B-MAN")
    head = np.eye(HIDDEN, len(TAGS))
    return build(directory, labels=TAGS, task="token-classification", rows=rows, head=head)


def build_answerer(directory: Path) -> Path:
    """Write a package to which every answer is добрый день."""
    rows = np.zeros((len(PIECES), HIDDEN))
    rows[PIECES.index("добрый"), 0] = rows[PIECES.index("день"), 1] = 9
    rows[PIECES.index("[CLS]"), :2] = 4
    task = {"labels": ("start", "end"), "task": "question-answering", "with_types": True}
    return build(directory, rows=rows, head=np.eye(HIDDEN, 2), **task)


@pytest.fixture
def make_package(tmp_path: Path) -> Maker:
    """Return a function that builds a package with changes; see `build`."""

    def make(name: str = "tiny", **changes: Any) -> Path:
        return build(tmp_path / name, **changes)

    return make


@pytest.fixture(scope="session")
def shared_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a package that no test changes."""
    return build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def classifier_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a package with three labels and token types that no test changes."""
    directory = tmp_path_factory.mktemp("models") / "tiny-mood"
    return build(directory, labels=("добро", "зло", "ничто"), with_types=True)


@pytest.fixture(scope="session")
def model(shared_package: Path) -> Model:
    return load(shared_package, lanes=1)


@pytest.fixture(scope="session")
def classifier(classifier_package: Path) -> Model:
    return load(classifier_package, lanes=1)


@pytest.fixture(scope="session")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(build_tagger(tmp_path_factory.mktemp("models") / "tiny"), lanes=1)


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(build_answerer(tmp_path_factory.mktemp("models") / "tiny"), lanes=1)
