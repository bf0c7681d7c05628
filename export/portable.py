"""What other tools read: `onnx/model.onnx` through optimum, files of sentence-transformers."""

import json
import warnings
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from rubert_lite.manifest import Manifest
from rubert_lite.wordpiece import SPECIAL_PIECES

from .weights import Array, read_config

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


def write_for_others(
    checkpoint: Path, folder: Path, manifest: Manifest, *, axes: Array | None = None
) -> None:
    """Add what transformers and sentence-transformers read; `axes` become a Dense module."""
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
    kinds = ["Transformer", "Pooling", *(["Dense"] if axes is not None else []), "Normalize"]
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{kind}" if i else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    pooling = {
        "word_embedding_dimension": manifest.hidden_size,
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
    if axes is not None:
        (folder / "2_Dense").mkdir()
        files["2_Dense/config.json"] = {
            "in_features": axes.shape[1],
            "out_features": axes.shape[0],
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        }
        save_file({"linear.weight": axes}, folder / "2_Dense" / "model.safetensors")
    for name, data in files.items():
        (folder / name).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
