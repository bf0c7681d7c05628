"""Where bfloat16 is worth it: on devices that multiply it."""

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

logger = logging.getLogger(__name__)

Precision = Literal["no", "bf16"]


def multiplies_bfloat16(device: torch.device) -> bool:
    """Say whether a device has units for bfloat16.

    With AMX torch outruns onnxruntime's fp32 twice, with AVX512-BF16 alone 1.3 times.
    """
    if device.type == "cpu":
        units = torch.cpu.get_capabilities()
        return bool(units.get("amx_bf16") or units.get("avx512_bf16"))
    return device.type == "cuda"


def worth_it(wanted: Precision, device: torch.device) -> Precision:
    """Return the precision to compute in: float32 where bfloat16 would be emulated.

    With that, and Muon's, training of the released models all but stood still (train/LOG.md).
    """
    if wanted == "bf16" and not multiplies_bfloat16(device):
        logger.warning("precision = 'bf16': this %s would emulate it: float32", device.type.upper())
        return "no"
    return wanted


def autocast(wanted: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context to compute in with such a precision, if it is worth it."""
    if wanted == "bf16" and multiplies_bfloat16(device):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
