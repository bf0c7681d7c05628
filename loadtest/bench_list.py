"""The engines of the benchmark: ours and the peers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Engine:
    """A row of the table."""

    label: str
    kind: str  # function of bench_engines
    option: str
    needs: str = ""  # module that its environment must have
    files: tuple[str, ...] = ()  # what it loads, for the bytes on disk
    device: str = "cpu"
    only: tuple[str, ...] = ()  # beginnings of the names of its workloads; empty: all

    def does(self, work: str) -> bool:
        """Whether it takes part in a workload."""
        return not self.only or work.startswith(self.only)


CPU_ENGINES = (
    Engine(
        "rubert_lite int8-static",
        "rubert_lite",
        "int8-static",
        "",
        ("fast.int8-static.onnx", "tokenizer.json"),
    ),
    Engine("rubert_lite int8", "rubert_lite", "int8", "", ("fast.int8.onnx", "tokenizer.json")),
    Engine(
        "rubert_lite int8-turbo",
        "rubert_lite",
        "int8-turbo",
        "",
        ("fast.int8-turbo.onnx", "tokenizer.json"),
    ),
    Engine("rubert_lite fp32", "rubert_lite", "fp32", "", ("fast.fp32.onnx", "tokenizer.json")),
    Engine("transformers fp32", "transformers", "float32", "torch", ("model.safetensors",)),
    Engine("transformers bf16", "transformers", "bfloat16", "torch", ("model.safetensors",)),
    Engine(
        "sentence-transformers torch",
        "sentence_transformers",
        "torch",
        "sentence_transformers",
        ("model.safetensors",),
    ),
    Engine(
        "sentence-transformers ONNX int8",
        "sentence_transformers",
        "onnx:onnx/model_quantized.onnx",
        "sentence_transformers",
        ("onnx/model_quantized.onnx",),
    ),
    Engine("optimum ORT fp32", "optimum", "model.onnx", "optimum", ("onnx/model.onnx",)),
    Engine(
        "optimum ORT int8",
        "optimum",
        "model_quantized.onnx",
        "optimum",
        ("onnx/model_quantized.onnx",),
    ),
    Engine("OpenVINO fp32", "openvino", "fp32", "openvino", ("onnx/model.onnx",)),
    Engine("OpenVINO bf16", "openvino", "bf16", "openvino", ("onnx/model.onnx",)),
    Engine("OpenVINO int8", "openvino", "int8", "openvino", ("onnx/model.onnx",)),
    Engine("CTranslate2 int8", "ctranslate2", "int8", "ctranslate2", ("ctranslate2/model.bin",)),
    Engine("fastembed", "fastembed", "onnx/model.onnx", "fastembed", ("onnx/model.onnx",)),
    Engine(
        "12 x 768 teacher, transformers fp32",
        "teacher",
        "float32",
        "torch",
        only=("one text", "512 pieces, batch 1"),
    ),
    Engine("static (floor)", "static", "-", "", ("tokenizer.json",)),
)

CUDA_ENGINES = (
    Engine(
        "rubert_lite fp16, CUDA",
        "rubert_lite",
        "fp16",
        "onnxruntime",
        ("fast.fp16.onnx", "tokenizer.json"),
        "cuda",
    ),
    Engine("transformers fp32, CUDA", "transformers", "float32", "torch", device="cuda"),
    Engine("transformers fp16, CUDA", "transformers", "float16", "torch", device="cuda"),
    Engine(
        "sentence-transformers fp16, CUDA",
        "sentence_transformers",
        "torch/float16",
        "sentence_transformers",
        device="cuda",
    ),
    Engine(
        "optimum ORT fp32, CUDA",
        "optimum",
        "model.onnx",
        "optimum",
        ("onnx/model.onnx",),
        "cuda",
    ),
    Engine(
        "12 x 768 teacher, transformers fp16, CUDA", "teacher", "float16", "torch", device="cuda"
    ),
    Engine("rubert_lite int8, CPU", "rubert_lite", "int8", "", ("fast.int8.onnx",)),
)
ENGINES = {"cpu": CPU_ENGINES, "cuda": CUDA_ENGINES}
BASELINES = {"cpu": "transformers fp32", "cuda": "transformers fp32, CUDA"}
