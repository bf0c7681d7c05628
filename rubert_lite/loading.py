"""Put a model together from its package, checking that the parts belong to each other."""

import json
from pathlib import Path

from tokenizers import Tokenizer

from .engine import Device, Engine
from .errors import InputError, PackageError
from .inputs import check_integer
from .manifest import PIECEWISE, Manifest
from .model import Model
from .package import TOKENIZER, ModelPackage
from .pieces import PieceReader
from .wordpiece import check_tokenizer


def load_model(
    path: Path,
    *,
    variant: str | None = None,
    device: Device = "cpu",
    lanes: int | None = None,
    verify: bool = True,
) -> Model:
    """Load the package in `path`; see `rubert_lite.load`."""
    if lanes is not None:
        lanes = check_integer("lanes", lanes, low=1)
    package = ModelPackage.open(path, verify=verify)
    manifest = package.manifest
    chosen = _default(manifest, device) if variant is None else variant
    if not isinstance(chosen, str) or chosen not in manifest.variants:
        raise InputError(
            f"{manifest.name}: no variant {chosen!r}, it has {', '.join(manifest.variants)}"
        )
    # Tokenizer and graph are checked even without `verify`, as the bytes that are then used.
    pieces = PieceReader(_tokenizer(package), max_length=manifest.max_length)
    graph = manifest.variants[chosen]
    data = package.read(graph)
    try:
        engine = Engine(data, device=device, lanes=lanes)
    except PackageError as error:
        raise PackageError(f"{package.path / graph}: {error}") from error
    _check_graph(package, engine, graph)
    return Model(package, pieces, engine, variant=chosen)


def _default(manifest: Manifest, device: Device) -> str:
    """Return the variant made for a device."""
    if device != "cuda":
        return manifest.default_variant
    if "fp16" not in manifest.variants:
        raise InputError(
            f"{manifest.name}: no variant fp16, which device='cuda' needs: export the checkpoint"
            " with --variants int8,fp16 (or name another variant)"
        )
    return "fp16"


def _tokenizer(package: ModelPackage) -> Tokenizer:
    data, where = package.read(TOKENIZER), package.path / TOKENIZER
    try:
        spec = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{where}: not JSON: {error}") from error
    if not isinstance(spec, dict):
        raise PackageError(f"{where}: a JSON {type(spec).__name__}, expected an object")
    vocab_size = package.manifest.vocab_size
    try:
        check_tokenizer(spec, vocab_size=vocab_size)
    except PackageError as error:
        raise PackageError(f"{package.path}: {error}") from error
    try:
        # From what was checked, not from the bytes: parsers differ on keys that stand twice.
        tokenizer = Tokenizer.from_str(json.dumps(spec))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        pair = tokenizer.encode("[MASK]", "[MASK]")
        highest = max([*tokenizer.get_added_tokens_decoder(), *pair.ids], default=0)
    except Exception as error:  # the library raises plain Exception
        raise PackageError(f"{where}: not a tokenizer: {error}") from error
    # Specials are put around the pieces here, not by the tokenizer: it must do it the same way.
    found = " ".join(pair.tokens), pair.type_ids
    if found != ("[CLS] [MASK] [SEP] [MASK] [SEP]", [0, 0, 0, 1, 1]):
        raise PackageError(f"{where}: a pair of [MASK] is {found}, expected BERT's [CLS] and [SEP]")
    if highest >= vocab_size:
        raise PackageError(f"{where}: added id {highest}, but the model has {vocab_size} rows")
    return tokenizer


def _check_graph(package: ModelPackage, engine: Engine, name: str) -> None:
    manifest, where = package.manifest, package.path / name
    expected = {
        "rubert_lite.tokenizer_sha256": manifest.tokenizer_sha256,
        "rubert_lite.vocab_size": str(manifest.vocab_size),
    }
    for key, value in expected.items():
        found = str(engine.metadata.get(key))
        if found != value:
            raise PackageError(
                f"{where}: {key.partition('.')[2]} {found[:12]}, the package has {value[:12]}:"
                " graph and tokenizer do not belong together: export the model again"
            )
    known = {"input_ids", "lengths", "token_type_ids"}
    if "input_ids" not in engine.inputs or not known.issuperset(engine.inputs):
        raise PackageError(
            f"{where}: inputs {', '.join(engine.inputs)}, expected input_ids and at most lengths"
            " and token_type_ids: it is not a fast graph"
        )
    widths = {"pooled": manifest.hidden_size, "sentence_embedding": manifest.hidden_size}
    if manifest.labels:
        widths["logits"] = len(manifest.labels)
    for output, width in widths.items():
        shape = engine.outputs.get(output)
        if shape is None:
            raise PackageError(f"{where}: no output {output!r}: it has {', '.join(engine.outputs)}")
        rank = 3 if output == "logits" and manifest.task in PIECEWISE else 2
        if len(shape) != rank:
            raise PackageError(
                f"{where}: {output} has {len(shape)} axes, expected {rank} of a {manifest.task}"
            )
        if isinstance(shape[-1], int) and shape[-1] != width:
            raise PackageError(f"{where}: {output} has {shape[-1]} columns, expected {width}")
