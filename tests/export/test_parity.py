import dataclasses
import json

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoModel

from export.cases import make_cases
from export.fast import build
from export.parity import (
    check,
    measure,
    measure_portable,
    probability_moved,
    reference,
    summarize,
)
from export.portable import export_portable
from export.sample import TEXTS
from export.weights import read_weights
from rubert_lite.errors import PackageError
from rubert_lite.wordpiece import bert_tokenizer_spec
from tests.export.conftest import PIECES, write_checkpoint


def cases_of(folder, texts=("привет, мир", "Лук не дом", "!"), types=1):
    return make_cases(
        folder / "tokenizer.json", texts, vocab_size=len(PIECES), max_length=64, types=types
    )


def compared(folder, weights, precision, types=1):
    graph = build(weights, precision=precision, metadata={}).SerializeToString()
    cases = cases_of(folder, types=types)
    return measure(graph, cases, expected=reference(folder, cases)), cases


def test_the_sample_is_diverse():
    assert len(set(TEXTS)) == len(TEXTS) >= 55
    together = "".join(TEXTS)
    assert set("ёйЁ№«»—🙂09axTP\t") <= set(together)
    assert {1, 2, 3} <= {len(t) for t in TEXTS}
    assert max(map(len, TEXTS)) > 3000 and any(not any(map(str.isalnum, t)) for t in TEXTS)


def test_cases_reach_every_end_of_the_vocabulary(checkpoint):
    cases = {c.name: c.ids for c in cases_of(checkpoint, types=2)}
    first, last = PIECES.index("[CLS]"), PIECES.index("[SEP]")
    assert all(ids[0] == first and ids[-1] == last for ids in cases.values())
    assert cases["the highest ids"][-2] == len(PIECES) - 1
    assert min(cases["the lowest ids"][1:-1]) == 0
    longest = cases["ids over the whole vocabulary, 64 pieces"]
    assert len(longest) == 64 and longest[1] == 0 and longest[-2] == len(PIECES) - 1
    made = next(c for c in cases_of(checkpoint, types=2) if c.name == "2 token types")
    assert made.types == (0,) * 32 + (1,) * 32
    name = next(n for n in cases if n.startswith("text 0"))
    assert name == "text 0 ('привет, мир')"
    assert "|".join(PIECES[i] for i in cases[name]) == "[CLS]|привет|,|мир|[SEP]"


def test_cut_and_padding_of_the_tokenizer_file_are_not_used(checkpoint):
    spec = bert_tokenizer_spec(PIECES)
    spec["padding"] = {
        "strategy": {"Fixed": 40}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    (checkpoint / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False))
    assert [len(c.ids) for c in cases_of(checkpoint, ("мир", "мир " * 100))][:2] == [3, 64]


def test_the_reference_is_the_mean_of_transformers_states(tmp_path, caplog):
    folder = write_checkpoint(tmp_path / "c", kind="bert", labels=3)
    cases = cases_of(folder, types=2)
    pooled, logits = reference(folder, cases)
    assert not caplog.records  # no talk of a pooler that nobody uses
    model = AutoModel.from_pretrained(folder).eval()
    case = cases[-1]
    with torch.no_grad():
        states = model(torch.tensor([case.ids]), token_type_ids=torch.tensor([case.types]))[0]
    assert np.abs(pooled[-1] - states[0].mean(0).numpy()).max() < 1e-6
    weights = read_weights(folder)
    assert np.abs(logits - pooled @ weights.head.weight.T - weights.head.bias).max() < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("kind", ["distilbert", "bert"])
def test_a_sound_graph_passes(tmp_path, kind, precision):
    folder = write_checkpoint(tmp_path / "c", kind=kind, labels=2)
    weights = read_weights(folder)
    found, cases = compared(folder, weights, precision, types=2 if kind == "bert" else 1)
    check(precision, found, cases)
    summary = summarize(precision, found)
    assert (summary.variant, summary.cases) == (precision, len(cases))
    assert summary.batch_difference <= 1e-6
    if precision == "fp32":
        assert summary.largest_difference < 1e-5 and summary.logits_difference < 1e-4
    else:
        assert summary.largest_difference > 1e-5


def test_a_wrong_row_of_token_types_is_found(tmp_path):
    folder = write_checkpoint(tmp_path / "c", kind="bert")
    weights = read_weights(folder)
    broken = dataclasses.replace(weights, types=weights.types[[0, 0]])
    found, cases = compared(folder, broken, "fp32", types=2)
    with pytest.raises(PackageError, match="for 2 token types, expected"):
        check("fp32", found, cases)


def test_the_worst_text_is_named(checkpoint):
    found, cases = compared(checkpoint, read_weights(checkpoint), "fp32")
    for field, value, message in (
        ("cosines", 0.9, "cosine 0.900000 with torch for text 1 \\('Лук не дом'\\)"),
        ("cosines", np.nan, "cosine -2.0+ with torch for text 1 \\('Лук не дом'\\)"),
        ("changes", 2e-6, "text 1 \\('Лук не дом'\\) changes by 2.0e-06"),
    ):
        values = getattr(found, field).copy()
        values[1] = value
        with pytest.raises(PackageError, match=message):
            check("fp32", dataclasses.replace(found, **{field: values}), cases)


def test_a_mean_that_is_low_is_refused_where_every_text_passes(checkpoint):
    found, cases = compared(checkpoint, read_weights(checkpoint), "int8")
    low = dataclasses.replace(found, cosines=np.full(len(cases), 0.995, np.float32))
    with pytest.raises(PackageError, match=r"mean cosine 0\.995000 .* the worst is text 0"):
        check("int8", low, cases)


def test_a_scale_for_the_whole_tensor_is_found(checkpoint, monkeypatch):
    """With one scale a batch, as dynamic quantisation has it, neighbours change a vector."""
    from export import fast

    real = fast.Graph.add

    def whole(self, kind, inputs, **options):
        if kind == "ReduceMax":
            options.pop("axes")
        return real(self, kind, inputs, **options)

    monkeypatch.setattr(fast.Graph, "add", whole)
    found, cases = compared(checkpoint, read_weights(checkpoint), "int8")
    with pytest.raises(PackageError, match="with its neighbours, expected at most 1e-06"):
        check("int8", found, cases)


def test_the_portable_graph_is_measured_in_padded_batches(checkpoint, tmp_path):
    graph = export_portable(checkpoint, tmp_path).read_bytes()
    cases = cases_of(checkpoint, TEXTS)
    expected = reference(checkpoint, cases)
    check("portable", measure_portable(graph, cases, expected=expected), cases)
    wrong = (np.roll(expected[0], 1, axis=0), None)
    with pytest.raises(PackageError, match="variant portable: cosine"):
        check("portable", measure_portable(graph, cases, expected=wrong), cases)
    # A graph that takes padding for pieces: right for each text alone, wrong in company.
    model = onnx.load_from_string(graph)
    for node in model.graph.node:
        node.input[:] = ["all_ones" if n == "attention_mask" else n for n in node.input]
    ones = [
        onnx.helper.make_node("Equal", ["attention_mask", "attention_mask"], ["same"]),
        onnx.helper.make_node("Cast", ["same"], ["all_ones"], to=onnx.TensorProto.INT64),
    ]
    nodes = [*ones, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    found = measure_portable(model.SerializeToString(), cases, expected=expected)
    assert found.cosines.min() > 0.99999
    with pytest.raises(PackageError, match="with its neighbours, expected at most 1e-05"):
        check("portable", found, cases)


@pytest.mark.parametrize("task", ["classification", "token-classification"])
def test_labels_that_do_not_follow_torch_are_refused(tmp_path, task):
    folder = write_checkpoint(tmp_path / "c", labels=3, task=task)
    weights = read_weights(folder)
    found, cases = compared(folder, weights, "fp32")
    check("fp32", found, cases)
    assert found.chances < 1e-5
    turned = dataclasses.replace(
        weights, head=dataclasses.replace(weights.head, weight=-weights.head.weight)
    )
    found, _ = compared(folder, turned, "fp32")
    assert found.cosines.min() > 0.99999  # the vectors are right
    with pytest.raises(PackageError, match="probabilities differ by .* in the mean from torch's"):
        check("fp32", found, cases)
    with pytest.raises(PackageError, match="probabilities differ by nan"):
        check("fp32", dataclasses.replace(found, chances=float("nan")), cases)


@pytest.mark.parametrize("labels", [2, 7, 100])
def test_wrong_predictions_count_alike_among_few_labels_and_many(labels):
    right, wrong = (np.eye(labels, dtype=np.float32)[[k, k]] * 100 for k in (0, 1))
    assert probability_moved(right, right) == 0
    assert probability_moved(wrong, right) == pytest.approx(1)
    half = np.stack([wrong[0], right[0]])
    assert probability_moved(half, right) == pytest.approx(0.5)
