"""Fidelity: every graph against torch, on real texts and on ids that texts rarely reach.

Our graphs get each case alone and among neighbours of its length; the portable graph gets them
padded, with a mask, as other tools feed it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rubert_lite.engine import Batch, Engine
from rubert_lite.errors import PackageError
from rubert_lite.manifest import PIECEWISE
from rubert_lite.predictions import softmax

from .cases import Case
from .turn import Turn, read_turn, unit
from .weights import read_config, read_task

Vectors = NDArray[np.float32]

# (least cosine of any text, least mean cosine) with torch in float32
LIMITS = {
    "fp32": (0.99999, 0.99999),
    "int8": (0.99, 0.999),
    "int8-turbo": (0.98, 0.999),
    "int8-static": (0.98, 0.999),
    "int4": (0.97, 0.995),
    "int4-static": (0.97, 0.995),
    "fp16": (0.9995, 0.9999),
    "portable": (0.99999, 0.99999),
}
# Largest change of a unit vector's element by its neighbours. Padding moves last bits.
BATCH_LIMITS = {
    "fp32": 1e-6,
    "int8": 1e-6,
    "int8-turbo": 0.05,
    "int8-static": 1e-6,
    "int4": 1e-6,
    "int4-static": 1e-6,
    "fp16": 2e-3,
    "portable": 1e-5,
}
# Largest share of the probability that moves to other labels, in the mean.
CHANCE_LIMITS = {
    "fp32": 1e-4,
    "int8": 0.02,
    "int8-turbo": 0.02,
    "int8-static": 0.02,
    "int4": 0.03,
    "int4-static": 0.03,
    "fp16": 0.005,
}
_PADDED_ROWS = 8
_UNTURNED = Turn()


@dataclass(frozen=True)
class Comparison:
    """What a graph gave for the cases, against torch: [cases] each."""

    cosines: NDArray[np.float32]
    differences: NDArray[np.float32]  # largest, of an element of the unit vectors
    changes: NDArray[np.float32]  # largest, of an element with neighbours against alone
    logits: float | None  # largest difference of any logit
    chances: float | None = None  # see probability_moved


@dataclass(frozen=True)
class Parity:
    """How close a variant is to torch over some cases."""

    variant: str
    cases: int
    mean_cosine: float
    least_cosine: float
    largest_difference: float  # of an element of the unit vectors
    batch_difference: float  # of a text alone and among others
    logits_difference: float | None
    chances_difference: float | None = None  # see probability_moved


def reference(checkpoint: Path, cases: Sequence[Case]) -> tuple[Vectors, list[Vectors] | None]:
    """Compute pooled vectors [cases, D] with transformers in float32 and, with a head, logits.

    Those of a case are [labels], or [pieces, labels] of a task on pieces. Vectors are turned.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel

    # BERT's pooler is not used, and a checkpoint may lack it: transformers would make one up.
    bert = read_config(checkpoint)["model_type"] == "bert"
    options = {"add_pooling_layer": False} if bert else {}
    model = AutoModel.from_pretrained(
        checkpoint, trust_remote_code=False, use_safetensors=True, **options
    )
    model = model.float().eval()
    head = checkpoint / "head.safetensors"
    tensors = load_file(head) if head.is_file() else None
    on_pieces = read_task(checkpoint) in PIECEWISE
    pooled, logits = [], []
    with torch.no_grad():
        for case in cases:
            feeds = {"input_ids": torch.tensor([case.ids])}
            if bert:
                feeds["token_type_ids"] = torch.tensor([case.types])
            hidden = model(**feeds).last_hidden_state[0]
            pooled.append(hidden.mean(0).numpy())
            if tensors is not None:
                judged = hidden if on_pieces else hidden.mean(0)
                logits.append((judged @ tensors["weight"].float().T + tensors["bias"]).numpy())
    vectors = np.stack(pooled)
    turn = read_turn(checkpoint, vectors.shape[1], model.config.vocab_size)
    vectors = turn.of(vectors, [case.ids for case in cases])
    return vectors, logits if tensors is not None else None


def measure(
    graph: bytes, cases: Sequence[Case], *, expected: tuple[Vectors, Sequence[Vectors] | None]
) -> Comparison:
    """Compare one of our graphs with the reference."""
    engine = Engine(graph, lanes=1)
    alone = np.concatenate([_run(engine, [c], "sentence_embedding") for c in cases])
    together = _together(engine, cases, alone)
    logits = chances = None
    if expected[1] is not None:
        found = [_run(engine, [c], "logits")[0] for c in cases]
        pairs = list(zip(found, expected[1], strict=True))
        logits = float(max(np.abs(f - e).max() for f, e in pairs))
        chances = float(np.mean([probability_moved(f, e) for f, e in pairs]))
    return _compare(alone, together, expected[0], logits, chances)


def probability_moved(logits: Vectors, expected: Vectors) -> float:
    """Return the share of the probability that other labels have, in the mean over rows.

    Half of the sum of differences: 1 where all predictions are certain and wrong, however many
    labels there are.
    """
    one, other = (softmax(x.reshape(-1, x.shape[-1])) for x in (logits, expected))
    return float(np.abs(one - other).sum(-1).mean() / 2)


def _together(engine: Engine, cases: Sequence[Case], alone: Vectors) -> Vectors:
    """Compute the cases among neighbours: padded where the graph takes that, else of its length."""
    if "lengths" in engine.inputs:
        groups = [cases[i : i + _PADDED_ROWS] for i in range(0, len(cases), _PADDED_ROWS)]
        return np.concatenate([_run(engine, group, "sentence_embedding") for group in groups])
    together = np.empty_like(alone)
    by_length: dict[int, list[int]] = {}
    for index, case in enumerate(cases):
        by_length.setdefault(len(case.ids), []).append(index)
    highest = max(max(c.ids) for c in cases)
    for length, indices in by_length.items():
        # Neighbours of other magnitudes: rows of the same length made of ids far apart.
        far = (tuple((np.arange(length) * k % highest).tolist()) for k in (1, 7, 31))
        rows = [cases[i] for i in indices] + [Case("", ids, (0,) * length) for ids in far]
        together[indices] = _run(engine, rows, "sentence_embedding")[: len(indices)]
    return together


def measure_portable(
    graph: bytes,
    cases: Sequence[Case],
    *,
    expected: tuple[Vectors, Sequence[Vectors] | None],
    turn: Turn = _UNTURNED,
) -> Comparison:
    """Compare a graph of last_hidden_state with the reference, alone and in padded batches.

    Their means are turned outside of it, by `turn`.
    """
    engine = Engine(graph, lanes=1)
    alone = np.concatenate([_run_padded(engine, [c]) for c in cases])
    groups = [cases[i : i + _PADDED_ROWS] for i in range(0, len(cases), _PADDED_ROWS)]
    together = np.concatenate([_run_padded(engine, group) for group in groups])
    ids = [case.ids for case in cases]
    return _compare(unit(turn.of(alone, ids)), unit(turn.of(together, ids)), expected[0])


def _compare(
    alone: Vectors,
    together: Vectors,
    expected: Vectors,
    logits: float | None = None,
    chances: float | None = None,
) -> Comparison:
    wanted = unit(expected)
    return Comparison(
        cosines=(alone * wanted).sum(1),
        differences=np.abs(alone - wanted).max(1),
        changes=np.abs(alone - together).max(1),
        logits=logits,
        chances=chances,
    )


def summarize(variant: str, found: Comparison) -> Parity:
    """Sum a comparison up for the manifest."""
    return Parity(
        variant=variant,
        cases=len(found.cosines),
        mean_cosine=round(float(found.cosines.mean()), 7),
        least_cosine=round(float(found.cosines.min()), 7),
        largest_difference=float(found.differences.max()),
        batch_difference=float(found.changes.max()),
        logits_difference=found.logits,
        chances_difference=found.chances,
    )


def _run(engine: Engine, rows: Sequence[Case], output: str) -> Vectors:
    width = max(len(c.ids) for c in rows)  # one length, or a graph that is told the lengths
    feeds = {
        "input_ids": np.array([c.ids + (0,) * (width - len(c.ids)) for c in rows], np.int64),
        "token_type_ids": np.array([c.types + (0,) * (width - len(c.ids)) for c in rows], np.int64),
        "lengths": np.array([len(c.ids) for c in rows], np.int64),
    }
    return engine.run(Batch(np.arange(len(rows)), {k: feeds[k] for k in engine.inputs}), output)


def _run_padded(engine: Engine, rows: Sequence[Case]) -> Vectors:
    """Return the mean of the hidden states below the mask, padding with id 0."""
    shape = (len(rows), max(len(c.ids) for c in rows))
    names = ("input_ids", "token_type_ids", "attention_mask")
    feeds = {name: np.zeros(shape, np.int64) for name in names}
    for i, case in enumerate(rows):
        length = len(case.ids)
        for name, values in zip(names, (case.ids, case.types, (1,) * length), strict=True):
            feeds[name][i, :length] = values
    batch = Batch(np.arange(len(rows)), {k: feeds[k] for k in engine.inputs})
    mask = feeds["attention_mask"][:, :, None].astype(np.float32)
    pooled: Vectors = (engine.run(batch, "last_hidden_state") * mask).sum(1) / mask.sum(1)
    return pooled


def check(variant: str, found: Comparison, cases: Sequence[Case]) -> None:
    """Raise PackageError, naming the text, when a variant is below its limits."""
    least, mean = LIMITS[variant]
    # A NaN is no cosine: -2 makes it the worst.
    cosines = np.nan_to_num(found.cosines, nan=-2)
    worst = int(np.argmin(cosines))
    if cosines[worst] < least:
        raise PackageError(
            f"variant {variant}: cosine {cosines[worst]:.6f} with torch for {cases[worst].name},"
            f" expected at least {least}: the package is not written"
        )
    if cosines.mean() < mean:
        raise PackageError(
            f"variant {variant}: mean cosine {cosines.mean():.6f} with torch over {len(cases)}"
            f" cases, expected at least {mean}: the package is not written; the worst is"
            f" {cases[worst].name}"
        )
    _check_chances(variant, found)
    moved = int(np.argmax(found.changes))
    if found.changes[moved] > BATCH_LIMITS[variant]:
        raise PackageError(
            f"variant {variant}: the vector of {cases[moved].name} changes by"
            f" {found.changes[moved]:.1e} with its neighbours, expected at most"
            f" {BATCH_LIMITS[variant]}: the package is not written"
        )


def _check_chances(variant: str, found: Comparison) -> None:
    if found.chances is None:
        return
    limit = CHANCE_LIMITS[variant]
    if not found.chances <= limit:  # a NaN is below nothing
        raise PackageError(
            f"variant {variant}: probabilities differ by {found.chances:.2g} in the mean from"
            f" torch's, expected at most {limit}: the package is not written"
        )


def as_metrics(summaries: Sequence[Parity]) -> dict[str, Any]:
    """Put summaries into a manifest's metrics."""
    found: dict[str, Any] = json.loads(json.dumps({s.variant: asdict(s) for s in summaries}))
    return found
