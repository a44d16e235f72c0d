"""Whether a device runs our own GPU kernels."""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import torch

_LEAST_CAPABILITY = (8, 0)
"""Of NVIDIA's GPUs, from which on they multiply bf16 tiles (Ampere)."""


@cache
def why_absent(device: torch.device) -> str | None:
    """None where this device runs these kernels; else why not, in words. In Triton's interpreter (TRITON_INTERPRET=1)
    a CPU runs them, a million times slower than a GPU: that is for tests.
    """
    if device.type != "cuda" and not (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return f"the device is {device.type}"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if device.type == "cpu":
        return None
    if not torch.cuda.is_available():
        return "this machine, or this build of torch, has no CUDA"
    if torch.version.hip is not None:
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability < _LEAST_CAPABILITY:
        return f"this GPU has compute capability {'.'.join(map(str, capability))}, and bf16 tiles need 8.0"
    return None
