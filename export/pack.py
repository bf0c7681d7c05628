"""From a checkpoint to a model package: graphs, checks, card, manifest."""

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace as with_changes
from pathlib import Path
from typing import Any, cast

from rubert_lite.errors import InputError
from rubert_lite.loading import load_model
from rubert_lite.manifest import INPUTS
from rubert_lite.package import Manifest, ModelPackage, seal, sha256_of, staged
from rubert_lite.wordpiece import check_tokenizer, strips_accents

from .card import write_card
from .cases import Case, make_cases
from .fast import Precision, build, measure_peaks
from .gpu import build_gpu
from .parity import (
    Parity,
    as_metrics,
    check,
    measure,
    measure_portable,
    reference,
    summarize,
)
from .portable import export_portable, write_for_others
from .remap import write_table
from .sample import TEXTS
from .tensors import read_json
from .training import read_training
from .turn import AXES, LEXICAL
from .weights import Weights, read_config, read_weights

logger = logging.getLogger(__name__)

FAST = ("int8", "fp32", "int8-turbo", "int8-static", "int4", "int4-static", "fp16")
EXTRAS = ("portable", "safetensors", "table")
VERSION = "0.1.0"
_STRIPS = "The tokenizer strips accents: the model reads й as и and ё as е, as its teacher did"
_LEAST_TEXTS = 200
_LEAST_WIDTH = 64  # of a truncated vector that is still offered


def export(
    checkpoint: Path,
    out: Path,
    *,
    name: str = "",
    variants: Sequence[str] = ("int8",),
    texts: Sequence[str] = (),
    notes: str = "",
    languages: Sequence[str] = ("ru",),
    replace: bool = False,
) -> ModelPackage:
    """Write a model package of `checkpoint` to `out` and open it.

    `variants` of our graphs, the first one named is the default: int8, fp32, int8-turbo (whose
    vectors depend a little on their batch), int8-static (whose scales come from `texts`), int4 and
    int4-static (the same with 4-bit rows) and fp16 (for CUDA). portable adds onnx/model.onnx,
    safetensors the weights, table vocab.tsv. Every graph is compared with torch on the built-in
    sample and `texts`; below the limits nothing is written.
    `notes` (Markdown) and `languages` (codes of two letters, ISO 639-1) go into the model card.
    Raises InputError, PackageError.
    """
    unknown = [v for v in variants if v not in FAST + EXTRAS]
    fast = [v for v in variants if v in FAST]
    if unknown or not fast:
        raise InputError(
            f"variants {', '.join(variants) or 'none'}: expected one or more of {', '.join(FAST)},"
            f" and perhaps {', '.join(EXTRAS)}"
        )
    for code in languages or [""]:
        if not (len(code) == 2 and code.isascii() and code.isalpha() and code.islower()):
            raise InputError(f"language {code!r}: expected a code of ISO 639-1 such as ru or en")
    static = next((v for v in fast if v.endswith("-static")), None)
    if static and len(texts) < _LEAST_TEXTS:
        raise InputError(
            f"variant {static}: {len(texts)} texts, expected at least {_LEAST_TEXTS} such as the"
            " model will read: its scales come from them (--texts FILE)"
        )
    spec = read_json(_tokenizer_of(checkpoint))
    if strips_accents(spec):
        logger.warning("%s: %s", checkpoint / "tokenizer.json", _STRIPS)
        notes = f"{_STRIPS}.\n\n{notes}"
    config, weights = read_config(checkpoint), read_weights(checkpoint)
    training = read_training(checkpoint)
    name = name or Path(os.path.abspath(out)).name
    manifest = _describe(checkpoint, name, config, weights, training)
    with staged(out, replace=replace) as folder:
        shutil.copyfile(checkpoint / "tokenizer.json", folder / "tokenizer.json")
        shutil.copyfile(checkpoint / "config.json", folder / "config.json")
        cases = make_cases(
            checkpoint / "tokenizer.json",
            [*TEXTS, *texts],
            vocab_size=manifest.vocab_size,
            max_length=manifest.max_length,
            types=1 if weights.types is None else len(weights.types),
        )
        expected = reference(checkpoint, cases)
        summaries: list[Parity] = []
        for variant in fast:
            graph = _build(weights, variant, _metadata(manifest, variant), cases)
            found = measure(graph, cases, expected=expected)
            check(variant, found, cases)
            summaries.append(summarize(variant, found))
            (folder / f"fast.{variant}.onnx").write_bytes(graph)
        if "portable" in variants:
            graph = export_portable(checkpoint, folder).read_bytes()
            found = measure_portable(graph, cases, expected=expected, turn=weights.turn)
            check("portable", found, cases)
            summaries.append(summarize("portable", found))
        if "safetensors" in variants:
            shutil.copyfile(checkpoint / "model.safetensors", folder / "model.safetensors")
            for file in (AXES, LEXICAL):
                if (checkpoint / file).is_file():
                    shutil.copyfile(checkpoint / file, folder / file)
        if {"portable", "safetensors"} & set(variants):
            write_for_others(checkpoint, folder, manifest, weights)
        if (checkpoint / "vocabulary.json").is_file() and {"safetensors", "table"} & set(variants):
            shutil.copyfile(checkpoint / "vocabulary.json", folder / "vocabulary.json")
        if "table" in variants:
            write_table(checkpoint, folder / "vocab.tsv")
        if (checkpoint / "LICENSE").is_file():
            shutil.copyfile(checkpoint / "LICENSE", folder / "LICENSE")
        manifest = with_changes(
            manifest,
            variants={v: f"fast.{v}.onnx" for v in fast},
            default_variant=fast[0],
            metrics={**training.get("metrics", {}), "parity": as_metrics(summaries)},
        )
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        sizes = {p.relative_to(folder).as_posix(): p.stat().st_size for p in files}
        card = write_card(
            manifest, training, summaries, sizes=sizes, notes=notes, languages=languages
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        seal(folder, manifest)
        for variant in fast:  # what cannot be loaded replaces nothing
            load_model(folder, variant=variant, verify=False, lanes=1)
    return ModelPackage.open(out)


def _build(
    weights: Weights, variant: str, metadata: dict[str, str], cases: Sequence[Case]
) -> bytes:
    if variant == "fp16":
        graph = build_gpu(weights, metadata=metadata)
    else:
        peaks = None
        if variant.endswith("-static"):
            peaks = measure_peaks(weights, _sample(cases))
        precision = cast(Precision, variant)
        graph = build(weights, precision=precision, metadata=metadata, peaks=peaks)
    data: bytes = graph.SerializeToString()
    return data


def _sample(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Return what static scales come from.

    Every second text (the others, in the comparison, are new to the scales), the made-up rows, and
    the first piece of each text alone: what attention mixes is largest where little is mixed.
    """
    texts = [c for c in cases if c.name.startswith("text")]
    chosen = [*texts[::2], *(c for c in cases if not c.name.startswith("text"))]
    for case in texts:
        ids = (*case.ids[:2], case.ids[-1])
        chosen.append(Case(case.name, ids, (0,) * len(ids)))
    return [case.feeds() for case in chosen]


def _describe(
    checkpoint: Path, name: str, config: dict[str, Any], weights: Weights, training: dict[str, Any]
) -> Manifest:
    if not name or not name.isprintable():
        raise InputError(f"name {name!r}: expected one line of printable characters")
    path = _tokenizer_of(checkpoint)
    vocab_size = len(weights.pieces)
    check_tokenizer(read_json(path), vocab_size=vocab_size)
    labels = _labels(checkpoint, config, weights)
    # Dimensions behind as many as the states have are what the first ones leave out.
    widths = [weights.hidden_size if weights.width > weights.hidden_size else weights.width // 2]
    while widths[-1] >= 2 * _LEAST_WIDTH:
        widths.append(widths[-1] // 2)
    return Manifest(
        name=name,
        version=VERSION,
        license=training.get("license", "unknown"),
        teacher=training.get("teacher", "unknown"),
        task=cast(Any, weights.task),
        labels=labels,
        inputs=_inputs(checkpoint, config) if weights.task == "classification" else "",
        vocab_size=vocab_size,
        hidden_size=weights.width,
        max_length=min(len(weights.positions), config.get("tuned_max_length", 1 << 30)),
        pooling="mean",
        normalize=True,
        truncate_dims=tuple(w for w in widths if w >= _LEAST_WIDTH),
        variants={},
        default_variant="",
        tokenizer_sha256=sha256_of(path),
        files={},
        metrics={},
        provenance=training,
    )


def _tokenizer_of(checkpoint: Path) -> Path:
    path = checkpoint / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file: expected the tokenizer of the checkpoint")
    return path


def _labels(checkpoint: Path, config: dict[str, Any], weights: Weights) -> tuple[str, ...]:
    if weights.head is None:
        return ()
    names, count = config.get("id2label", {}), len(weights.head.bias)
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(count)}:
        raise InputError(
            f"{checkpoint / 'config.json'}: id2label {names!r}, the head has {count} labels:"
            f" expected a name for each of 0..{count - 1}"
        )
    return tuple(str(names[str(i)]) for i in range(count))


def _inputs(checkpoint: Path, config: dict[str, Any]) -> Any:
    found = config.get("tuned_inputs", "")
    if found not in INPUTS:
        raise InputError(
            f"{checkpoint / 'config.json'}: tuned_inputs {found!r}, expected texts or pairs"
        )
    return found


def _metadata(manifest: Manifest, variant: str) -> dict[str, str]:
    values = {
        "name": manifest.name,
        "tokenizer_sha256": manifest.tokenizer_sha256,
        "vocab_size": str(manifest.vocab_size),
        "variant": variant,
        "pooling": "mean",
        "batch_independent": "false" if variant in ("int8-turbo", "fp16") else "true",
        "teacher": manifest.teacher,
        "license": manifest.license,
    }
    return {f"rubert_lite.{key}": value for key, value in values.items()}
