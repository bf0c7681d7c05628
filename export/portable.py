"""What other tools read: `onnx/model.onnx` through optimum, files of sentence-transformers."""

import json
import warnings
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from rubert_lite.manifest import Manifest
from rubert_lite.wordpiece import SPECIAL_PIECES

from .weights import Weights, read_config

# Where sentence-transformers finds a module's class: ours by its address once installed.
_THEIRS = "sentence_transformers.models"
_MODULES = {"PiecesBeside": "rubert_lite.export.pieces_beside"}

# What the libraries say of themselves at every export; anything else still reaches the caller.
_KNOWN = (
    "You are using the legacy TorchScript-based ONNX export",  # all that optimum-onnx 0.1.0 knows
    "The feature will be removed",  # torch of the same
    "torch.tensor results are registered as constants",  # transformers' mask, constant indeed
)


def export_portable(checkpoint: Path, out: Path) -> Path:
    """Write `out/onnx/model.onnx` in float32 and return its path.

    Inputs input_ids and attention_mask (and token_type_ids for BERT), padded as usual; output
    last_hidden_state. The caller compares it with torch: optimum itself only warns.
    """
    folder = out / "onnx"
    folder.mkdir()
    with warnings.catch_warnings():
        for message in _KNOWN:
            warnings.filterwarnings("ignore", message=message)
        from optimum.exporters.onnx import main_export

        main_export(
            str(checkpoint),
            output=str(folder),
            task="feature-extraction",
            library_name="transformers",
            trust_remote_code=False,
            do_validation=False,
        )
    for path in folder.iterdir():
        if path.name != "model.onnx":
            path.unlink()  # tokenizer and config stand once, at the top
    return folder / "model.onnx"


def write_for_others(checkpoint: Path, folder: Path, manifest: Manifest, weights: Weights) -> None:
    """Add what transformers and sentence-transformers read.

    Axes become a Dense module, vectors of pieces one of ours before it (pieces_beside.py).
    """
    # DistilBERT takes no token types, so its tokenizer must not hand them over.
    names = ["input_ids", "attention_mask"]
    if read_config(checkpoint)["model_type"] == "bert":
        names.append("token_type_ids")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": manifest.max_length,
        "model_input_names": names,
        **{f"{p.strip('[]').lower()}_token": p for p in SPECIAL_PIECES},
    }
    axes, lexical = weights.turn.axes, weights.turn.lexical
    kinds = ["Transformer", "Pooling"]
    kinds += ["PiecesBeside"] if lexical is not None else []
    kinds += ["Dense"] if axes is not None else []
    paths = {kind: f"{i}_{kind}" if i else "" for i, kind in enumerate([*kinds, "Normalize"])}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"{_MODULES.get(kind, _THEIRS)}.{kind}"}
        for i, (kind, path) in enumerate(paths.items())
    ]
    pooling = {
        "word_embedding_dimension": weights.hidden_size,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_cls_token": False,
    }
    length = {"max_seq_length": manifest.max_length, "do_lower_case": False}
    files: dict[str, Any] = {
        "tokenizer_config.json": settings,
        "modules.json": modules,
        "1_Pooling/config.json": pooling,
        "sentence_bert_config.json": length,
    }
    (folder / "1_Pooling").mkdir()
    if lexical is not None:
        inner = folder / paths["PiecesBeside"]
        inner.mkdir()
        save_file({"weight": lexical}, inner / "model.safetensors")
    if axes is not None:
        inner = folder / paths["Dense"]
        inner.mkdir()
        files[f"{inner.name}/config.json"] = {
            "in_features": axes.shape[1],
            "out_features": axes.shape[0],
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        }
        save_file({"linear.weight": axes}, inner / "model.safetensors")
    for name, data in files.items():
        (folder / name).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
