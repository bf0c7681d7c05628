"""What `import rubert_lite` costs, in a fresh interpreter."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = {
    "torch", "transformers", "onnx", "onnxruntime", "optimum", "pydantic", "fastapi", "starlette",
    "requests", "httpx", "huggingface_hub", "pyarrow", "tqdm", "accelerate", "scipy", "sklearn",
    "train", "export", "serve", "loadtest", "asyncio", "multiprocessing",
}  # fmt: skip
CODE = (
    "import json, os, sys, time, threading\n"
    "environment = dict(os.environ)\n"
    "start = time.perf_counter()\n"
    "import rubert_lite\n"
    "seconds = time.perf_counter() - start\n"
    "roots = sorted({name.partition('.')[0] for name in sys.modules})\n"
    "same = environment == dict(os.environ) and threading.active_count() == 1\n"
    "print(json.dumps([seconds, roots, same]))\n"
)


def test_import_is_light_and_changes_nothing() -> None:
    seconds = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", CODE],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        taken, roots, same = json.loads(done.stdout)
        assert not HEAVY & set(roots)
        assert same
        assert done.stderr == ""
        seconds.append(taken)
    assert {"numpy", "tokenizers"} <= set(roots)
    assert sorted(seconds)[1] < 1  # 0.2 on a quiet machine


def test_commands_do_not_load_onnxruntime_before_they_need_it() -> None:
    code = (
        "import sys, rubert_lite.cli\n"
        "status = rubert_lite.cli.main(['models'])\n"
        "assert status == 0 and 'onnxruntime' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=True)
