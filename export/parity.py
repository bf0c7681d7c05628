"""Fidelity: every graph against torch, on real texts and on ids that texts rarely reach."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rubert_lite.engine import Batch, Engine
from rubert_lite.errors import PackageError
from rubert_lite.normalize import normalize_text

Vectors = NDArray[np.float32]

# (least cosine of any text, least mean cosine) with torch in float32
LIMITS = {"fp32": (0.99999, 0.99999), "int8": (0.99, 0.999)}
BATCH_LIMIT = 1e-6  # largest change of a unit vector's element by its neighbours


@dataclass(frozen=True)
class Case:
    """One comparison: ids with specials, and what to call them in a message."""

    name: str
    ids: tuple[int, ...]


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


def make_cases(
    tokenizer_file: Path, texts: Sequence[str], *, vocab_size: int, max_length: int
) -> list[Case]:
    """Tokenise texts and add made-up rows: the highest and the lowest ids, and the full length."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.enable_truncation(max_length)
    encoded = tokenizer.encode_batch([normalize_text(t) for t in texts])
    cases = [
        Case(f"text {i} ({_shorten(t)!r})", tuple(e.ids))
        for i, (t, e) in enumerate(zip(texts, encoded, strict=True))
    ]
    first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    spread = np.linspace(0, vocab_size - 1, max_length - 2).astype(int).tolist()
    made = {
        "the highest ids": range(max(0, vocab_size - 20), vocab_size),
        "the lowest ids": range(min(20, vocab_size)),
        f"ids over the whole vocabulary, {max_length} pieces": spread,
    }
    cases += [Case(name, (first, *ids, last)) for name, ids in made.items()]
    return cases


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


def reference(checkpoint: Path, cases: Sequence[Case]) -> tuple[Vectors, Vectors | None]:
    """Compute pooled vectors (and logits, with a head) with transformers in float32."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel

    model = AutoModel.from_pretrained(checkpoint, trust_remote_code=False).float().eval()
    pooled = []
    with torch.no_grad():
        for case in cases:
            states = model(input_ids=torch.tensor([case.ids])).last_hidden_state
            pooled.append(states[0].mean(0).numpy())
    vectors = np.stack(pooled)
    head = checkpoint / "head.safetensors"
    if not head.is_file():
        return vectors, None
    tensors = load_file(head)
    logits = vectors @ tensors["weight"].float().numpy().T + tensors["bias"].float().numpy()
    return vectors, logits


def measure(
    graph: bytes, variant: str, cases: Sequence[Case], *, expected: tuple[Vectors, Vectors | None]
) -> tuple[Parity, list[float]]:
    """Compare a graph with the reference; return the summary and the cosine of every case."""
    engine = Engine(graph, lanes=1)
    wanted = _unit(expected[0])
    alone = np.concatenate([_run(engine, [c.ids], "sentence_embedding") for c in cases])
    together = np.empty_like(alone)
    by_length: dict[int, list[int]] = {}
    for index, case in enumerate(cases):
        by_length.setdefault(len(case.ids), []).append(index)
    for length, indices in by_length.items():
        # Neighbours of other magnitudes: rows of the same length made of ids far apart.
        others = [tuple((np.arange(length) * k % max(cases[-1].ids)).tolist()) for k in (1, 7, 31)]
        rows = [cases[i].ids for i in indices] + others
        together[indices] = _run(engine, rows, "sentence_embedding")[: len(indices)]
    cosines = (alone * wanted).sum(1)
    logits = None
    if expected[1] is not None:
        found = np.concatenate([_run(engine, [c.ids], "logits") for c in cases])
        logits = float(np.abs(found - expected[1]).max())
    summary = Parity(
        variant=variant,
        cases=len(cases),
        mean_cosine=round(float(cosines.mean()), 7),
        least_cosine=round(float(cosines.min()), 7),
        largest_difference=float(np.abs(alone - wanted).max()),
        batch_difference=float(np.abs(alone - together).max()),
        logits_difference=logits,
    )
    return summary, cosines.tolist()


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def _run(engine: Engine, rows: Sequence[Sequence[int]], output: str) -> Vectors:
    ids = np.array(rows, dtype=np.int64)
    feeds = {"input_ids": ids}
    if "token_type_ids" in engine.inputs:
        feeds["token_type_ids"] = np.zeros_like(ids)
    return engine.run(Batch(np.arange(len(ids)), feeds), output)


def check(summary: Parity, cosines: Sequence[float], cases: Sequence[Case]) -> None:
    """Raise PackageError, naming the text, when a variant is below its limits."""
    least, mean = LIMITS[summary.variant]
    worst = int(np.argmin(cosines))
    if not cosines[worst] >= least:  # also when it is not a number
        raise PackageError(
            f"variant {summary.variant}: cosine {cosines[worst]:.6f} with torch for"
            f" {cases[worst].name}, expected at least {least}: the package is not written"
        )
    if not summary.mean_cosine >= mean:
        raise PackageError(
            f"variant {summary.variant}: mean cosine {summary.mean_cosine:.6f} with torch over"
            f" {summary.cases} cases, expected at least {mean}; the worst is {cases[worst].name}"
        )
    if not summary.batch_difference <= BATCH_LIMIT:
        raise PackageError(
            f"variant {summary.variant}: a vector changes by {summary.batch_difference:.1e} with"
            f" its neighbours, expected at most {BATCH_LIMIT}"
        )


def as_metrics(summaries: Sequence[Parity]) -> dict[str, Any]:
    """Put summaries into a manifest's metrics."""
    found: dict[str, Any] = json.loads(json.dumps({s.variant: asdict(s) for s in summaries}))
    return found
