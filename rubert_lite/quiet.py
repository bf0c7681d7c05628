"""Import onnxruntime so that it keeps to itself."""

import os
import sys
from types import ModuleType

OPT_OUT = "ORT_DISABLE_TELEMETRY"


def import_onnxruntime() -> ModuleType:
    """Return onnxruntime, without the telemetry that its wheels have had since 1.29.

    On Linux and macOS they report to their maker: connections, a device's number and a database
    in ~/.cache, and a thread for which a forked child hangs at its end. That is decided while the
    module is imported, by a variable of the environment, which is set for so long unless it has a
    value. Who imports onnxruntime before has to set it: afterwards only some events can be turned
    off. Raises ImportError.
    """
    given, early = os.environ.get(OPT_OUT), "onnxruntime" in sys.modules
    if given is None:
        os.environ[OPT_OUT] = "1"
    try:
        import onnxruntime
    finally:
        if given is None:
            os.environ.pop(OPT_OUT, None)
    if early and given is None:
        onnxruntime.disable_telemetry_events()
    module: ModuleType = onnxruntime
    return module
