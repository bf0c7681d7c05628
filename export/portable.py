"""The standard graph for every other tool: `onnx/model.onnx` through optimum, last_hidden_state."""

import warnings
from pathlib import Path

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
