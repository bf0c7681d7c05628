"""Before anything else is imported."""

import os

# Some tests import onnxruntime themselves; see rubert_lite/quiet.py.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
