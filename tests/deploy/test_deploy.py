"""The ways to deploy, as far as a machine without a cluster can tell."""

import importlib.util
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rubert_lite.package import ModelPackage, seal
from serve.settings import Settings
from tests.rubert_lite.conftest import build

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def test_kubernetes_manifests_fit_the_schema():
    import kubernetes_validate

    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8")))
    assert [d["kind"] for d in documents] == [
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "HorizontalPodAutoscaler",
    ]
    for document in documents:
        kubernetes_validate.validate(document, "1.31", strict=True)
    broken = documents[0] | {"spec": documents[0]["spec"] | {"replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.31", strict=True)


def test_deployments_name_settings_that_exist():
    known = {f"RUBERT_LITE_{name.upper()}" for name in Settings.model_fields}
    for name in ("kubernetes.yaml", "Dockerfile", "rubert-lite.service"):
        used = set(re.findall(r"RUBERT_LITE_[A-Z_]+", (DEPLOY / name).read_text("utf-8")))
        assert used and used <= known, used - known


def test_links_of_services_do_not_become_settings():
    """Kubernetes would set RUBERT_LITE_PORT to tcp://... for a service of our name."""
    document = next(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8")))
    pod = document["spec"]["template"]["spec"]
    assert pod["enableServiceLinks"] is False
    given = {e["name"]: e.get("value") for e in pod["containers"][0]["env"]}
    assert given["RUBERT_LITE_PORT"] == str(pod["containers"][0]["ports"][0]["containerPort"])


def test_the_grace_period_is_longer_than_drain_and_last_answers():
    document = next(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8")))
    pod = document["spec"]["template"]["spec"]
    env = {e["name"]: e.get("value") for e in pod["containers"][0]["env"]}
    needed = float(env["RUBERT_LITE_DRAIN_SECONDS"]) + Settings().shutdown_seconds
    assert pod["terminationGracePeriodSeconds"] > needed
    unit = (DEPLOY / "rubert-lite.service").read_text("utf-8")
    stop = float(re.findall(r"TimeoutStopSec=(\d+)", unit)[0])
    assert stop > Settings().drain_seconds + Settings().shutdown_seconds


def test_the_image_has_no_torch_and_no_root():
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    assert "[cpu,serve]" in text and "torch" not in text.split("\n", 1)[1]
    assert re.search(r"^USER 10001$", text, re.M) and "ENTRYPOINT" in text


def test_triton_repositories_parse(tmp_path):
    """In a process of its own: tritonclient brings gevent and grpc along."""
    package = build(tmp_path / "tiny")
    command = [sys.executable, str(DEPLOY / "triton.py"), str(package), "--to", str(tmp_path / "m")]
    subprocess.run(command, check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})
    check = """
import sys, pathlib
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
for path in sorted(pathlib.Path(sys.argv[1]).glob("*/config.pbtxt")):
    config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    print(config.name, config.backend, list(config.output[0].dims))
"""
    found = subprocess.run(
        [sys.executable, "-c", check, str(tmp_path / "m")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout.splitlines() == ["tiny python [-1, 8]", "tiny_graph onnxruntime [8]"]
    graph = tmp_path / "m" / "tiny_graph" / "1" / "model.onnx"
    assert graph.read_bytes() == (package / "fast.fp32.onnx").read_bytes()
    compile((tmp_path / "m" / "tiny" / "1" / "model.py").read_text("utf-8"), "model.py", "exec")


def writer():
    """Return deploy/triton.py, which is in no package, as a module."""
    spec = importlib.util.spec_from_file_location("triton_writer", DEPLOY / "triton.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_triton_front_gives_our_vectors(tmp_path, monkeypatch):
    """Its Python backend, with a stand-in for Triton that runs the graph."""
    import types

    import numpy as np
    import onnxruntime

    from rubert_lite import load

    package = build(tmp_path / "tiny")
    writer().write_repository(ModelPackage.open(package), tmp_path / "m")
    session = onnxruntime.InferenceSession(tmp_path / "m" / "tiny_graph" / "1" / "model.onnx")

    class Tensor:
        def __init__(self, name, values):
            self.name, self.values = name, values

        def as_numpy(self):
            return self.values

    class Response:
        def __init__(self, output_tensors=(), error=None):
            self.tensors, self.error = output_tensors, error

        def has_error(self):
            return self.error is not None

    class Request:
        def __init__(self, model_name, requested_output_names, inputs):
            assert model_name == "tiny_graph"
            self.names, self.inputs = requested_output_names, inputs

        def exec(self):
            feeds = {t.name: t.values for t in self.inputs}
            return Response([Tensor(self.names[0], session.run(self.names, feeds)[0])])

    stand_in = types.ModuleType("triton_python_backend_utils")
    stand_in.Tensor, stand_in.InferenceRequest = Tensor, Request
    stand_in.InferenceResponse = Response
    stand_in.get_input_tensor_by_name = lambda request, name: request[name]
    stand_in.get_output_tensor_by_name = lambda response, name: response.tensors[0]
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", stand_in)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the model adds its own folder
    monkeypatch.delitem(sys.modules, "text_contract", raising=False)
    names: dict = {}
    exec((tmp_path / "m" / "tiny" / "1" / "model.py").read_text("utf-8"), names)
    front = names["TritonPythonModel"]()
    front.initialize({"model_repository": str(tmp_path / "m" / "tiny"), "model_version": "1"})
    texts = ["мир", "Приве\u0301т, ми\u0301р", "день", "", "и день " * 500]
    given = Tensor("text", np.array([t.encode() for t in texts], dtype=object))
    [answer] = front.execute([{"text": given}])
    assert np.allclose(answer.tensors[0].values, load(package).encode(texts), atol=1e-6)


def named(path: Path, name: str) -> Path:
    seal(path, replace(ModelPackage.open(path).manifest, name=name))
    return path


@pytest.mark.parametrize(
    "name", ["..", ".", "../x", "/x", "-x", "", "a b", "мир", 'x" y: "', '"+str(print("RUNS"))+"']
)
def test_triton_names_that_would_leave_their_place_are_refused(tmp_path, name):
    package = named(build(tmp_path / "tiny"), name)
    to = tmp_path / "models" / "repository"
    command = [sys.executable, str(DEPLOY / "triton.py"), str(package), "--to", str(to)]
    found = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert found.returncode == 1 and "Traceback" not in found.stderr
    assert f"{package}: name {name!r}, expected" in found.stderr
    assert not to.parent.exists()


def test_triton_names_with_slashes_are_kept_apart(tmp_path):
    package = named(build(tmp_path / "tiny"), "me/x_1.0")
    writer().write_repository(ModelPackage.open(package), tmp_path / "m")
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [
        "me--x_1.0",
        "me--x_1.0_graph",
    ]
    code = (tmp_path / "m" / "me--x_1.0" / "1" / "model.py").read_text("utf-8")
    assert "model_name='me--x_1.0_graph'," in code
