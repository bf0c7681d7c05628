"""Write a Triton model repository for a package: python deploy/triton.py distil-16k --to models/

Two models: NAME_graph is our int8 graph on Triton's onnxruntime backend (batches of equal length,
as its dynamic batcher joins requests); NAME tokenises in its Python backend, which needs numpy and
tokenizers in Triton's Python, and asks NAME_graph for each length. Vectors alone: no labels, and
none of a variant whose graph takes padded rows (fp16).
"""

import argparse
import re
import shutil
import sys
from pathlib import Path

from rubert_lite import normalize
from rubert_lite.errors import InputError, RubertLiteError
from rubert_lite.locate import locate
from rubert_lite.package import Manifest, ModelPackage

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_GRAPH = """\
name: "{graph}"
backend: "onnxruntime"
max_batch_size: 64
input [ {{ name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] }} ]
output [ {{ name: "sentence_embedding" data_type: TYPE_FP32 dims: [ {width} ] }} ]
dynamic_batching {{ max_queue_delay_microseconds: 0 }}
instance_group [ {{ kind: KIND_CPU count: {lanes} }} ]
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
parameters {{ key: "inter_op_thread_count" value: {{ string_value: "1" }} }}
"""
_FRONT = """\
name: "{name}"
backend: "python"
max_batch_size: 0
input [ {{ name: "text" data_type: TYPE_STRING dims: [ -1 ] }} ]
output [ {{ name: "sentence_embedding" data_type: TYPE_FP32 dims: [ -1, {width} ] }} ]
instance_group [ {{ kind: KIND_CPU count: {lanes} }} ]
"""
_CODE = '''\
"""Texts to vectors: tokenises, then asks the graph for the texts of each length."""

import pathlib
import sys

import numpy as np
import triton_python_backend_utils as pb
from tokenizers import Tokenizer


class TritonPythonModel:
    def initialize(self, args):
        folder = pathlib.Path(args["model_repository"]) / args["model_version"]
        sys.path.insert(0, str(folder))
        from text_contract import normalize_text  # rubert_lite/normalize.py, as it was

        self.normalize = normalize_text
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation({longest!r})

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        given = pb.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1)
        # More characters than fill any row: see rubert_lite/pieces.py.
        texts = [self.normalize(t.decode("utf-8", "replace")[: 101 * {longest!r}]) for t in given]
        ids = [e.ids for e in self.tokenizer.encode_batch(texts)]
        rows = np.zeros((len(ids), {width!r}), dtype=np.float32)
        for length in sorted({{len(i) for i in ids}}):
            places = [p for p, i in enumerate(ids) if len(i) == length]
            for start in range(0, len(places), 64):
                chosen = places[start : start + 64]
                tensor = pb.Tensor("input_ids", np.array([ids[p] for p in chosen], dtype=np.int64))
                answer = pb.InferenceRequest(
                    model_name={graph!r},
                    requested_output_names=["sentence_embedding"],
                    inputs=[tensor],
                ).exec()
                if answer.has_error():
                    return pb.InferenceResponse(error=answer.error())
                output = pb.get_output_tensor_by_name(answer, "sentence_embedding")
                rows[chosen] = output.as_numpy()
        return pb.InferenceResponse(output_tensors=[pb.Tensor("sentence_embedding", rows)])
'''


def write_repository(package: ModelPackage, out: Path, *, lanes: int = 2) -> None:
    """Write both models below `out`; FileExistsError if they are there.

    InputError for a package whose name cannot be that of a folder.
    """
    manifest: Manifest = package.manifest
    name = manifest.name.replace("/", "--")
    if not _NAME.fullmatch(name):  # it goes into paths, into configurations and into Python
        raise InputError(
            f"{package.path}: name {manifest.name!r}, expected letters (a-z), digits, '.', '_', '-'"
            " and '/', of which a letter, digit or '_' comes first: export it again with --name"
        )
    of_graph = f"{name}_graph"
    values = {
        "name": name,
        "graph": of_graph,
        "width": manifest.hidden_size,
        "lanes": lanes,
        "longest": manifest.max_length,
    }
    graph, front = out / of_graph / "1", out / name / "1"
    for folder in (graph, front):
        folder.mkdir(parents=True)
    chosen = manifest.variants[manifest.default_variant]
    shutil.copyfile(package.path / chosen, graph / "model.onnx")
    shutil.copyfile(package.path / "tokenizer.json", front / "tokenizer.json")
    shutil.copyfile(Path(normalize.__file__), front / "text_contract.py")
    (graph.parent / "config.pbtxt").write_text(_GRAPH.format(**values), encoding="utf-8")
    (front.parent / "config.pbtxt").write_text(_FRONT.format(**values), encoding="utf-8")
    (front / "model.py").write_text(_CODE.format(**values), encoding="utf-8")


def main() -> int:
    """Read the arguments and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="name or directory of a package")
    parser.add_argument("--to", type=Path, required=True, help="the model repository")
    parser.add_argument("--lanes", type=int, default=2)
    arguments = parser.parse_args()
    try:
        package = ModelPackage.open(locate(arguments.model))
        write_repository(package, arguments.to, lanes=arguments.lanes)
    except RubertLiteError as error:
        print(f"triton.py: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.to}: written", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
