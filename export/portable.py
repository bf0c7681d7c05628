"""The standard graph for every other tool: `onnx/model.onnx` through optimum, last_hidden_state."""

import warnings
from pathlib import Path


def export_portable(checkpoint: Path, out: Path) -> Path:
    """Write `out/onnx/model.onnx` in float32 and return its path.

    Inputs input_ids and attention_mask (and token_type_ids for BERT), padded as usual; output
    last_hidden_state. optimum compares it with torch before it returns.
    """
    folder = out / "onnx"
    folder.mkdir()
    with warnings.catch_warnings():
        # The tracing exporter is what optimum-onnx 0.1.0 uses; torch announces its end at every
        # call, and the tracer warns of each Python number in transformers' code. The result is
        # checked below.
        warnings.simplefilter("ignore")
        from optimum.exporters.onnx import main_export

        main_export(
            str(checkpoint),
            output=str(folder),
            task="feature-extraction",
            library_name="transformers",
            trust_remote_code=False,
            do_validation=True,
        )
    for path in folder.iterdir():
        if path.name != "model.onnx":
            path.unlink()  # tokenizer and config stand once, at the top
    return folder / "model.onnx"
