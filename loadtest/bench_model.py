"""A model of random weights in every format that an engine reads."""

import json
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

from texts import make_texts
from tokenizers import Tokenizer

_VARIANTS = ("int8-static", "int8", "fp32", "fp16", "int8-turbo")


def make_model(package: Path, out: Path, *, vocabulary: Path | None = None) -> Path:
    """Write a package with random weights in every format, of the shape and pieces of another."""
    manifest = out / "manifest.json"
    if manifest.exists():
        made = json.loads(manifest.read_text(encoding="utf-8"))["variants"]
        if set(_VARIANTS) <= set(made):
            return out
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedTokenizerFast

    checkpoint = out.with_name(f"{out.name}-checkpoint")
    config = AutoConfig.from_pretrained(package)
    source = vocabulary or package / "tokenizer.json"
    config.vocab_size = Tokenizer.from_file(str(source)).get_vocab_size()
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(config)
    model.save_pretrained(checkpoint)
    shutil.copyfile(source, checkpoint / "tokenizer.json")
    PreTrainedTokenizerFast(tokenizer_file=str(source)).save_pretrained(checkpoint)
    shutil.copyfile(source, checkpoint / "tokenizer.json")
    texts = out.with_name(f"{out.name}-texts.txt")  # static scales come from them
    texts.write_text("\n".join(islice(make_texts(0), 400)) + "\n", encoding="utf-8")
    variants = ",".join((*_VARIANTS, "portable", "safetensors"))
    words = [sys.executable, "-m", "export", str(checkpoint), "--to", str(out), "--force"]
    subprocess.run([*words, "--variants", variants, "--texts", str(texts)], check=True)
    # What optimum and sentence-transformers call int8: dynamic, a scale for each output.
    graph = out / "onnx" / "model.onnx"
    small = graph.with_name("model_quantized.onnx")
    quantize_dynamic(graph, small, per_channel=True, weight_type=QuantType.QInt8)
    return out
