"""Whether a device runs our own GPU kernels."""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import torch

_LEAST_CAPABILITY = (8, 0)
"""Of NVIDIA's GPUs, from which on they multiply bf16 tiles (Ampere)."""

_SIDE = 64
"""Of a matrix to try: as wide as the least that a program reads at a time."""

_MOST_WORDS = 200
"""Of what a compiler says, in characters."""


@cache
def why_absent(device: torch.device) -> str | None:
    """None where this device runs these kernels; else why not, in words. In Triton's interpreter (TRITON_INTERPRET=1)
    a CPU runs them, much too slowly to serve: that is for tests.
    """
    return why_not_tried(device) or (None if device.type == "cpu" else why_not_run(device))


def why_not_tried(device: torch.device) -> str | None:
    """None where these kernels should run, by what the device is and what is installed."""
    if device.type != "cuda" and not (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return f"the device is {device.type}"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if device.type == "cpu":
        return None
    if not torch.cuda.is_available():
        return "this machine, or this build of torch, has no CUDA"
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip is None and capability < _LEAST_CAPABILITY:
        return f"this GPU has compute capability {'.'.join(map(str, capability))}, and bf16 tiles need 8.0"
    return None


def why_not_run(device: torch.device) -> str | None:
    """None where a small product comes out right; else what the user may do about it. Compiles a kernel: seconds, the
    first time on a machine. Raises: torch.OutOfMemoryError.
    """
    try:
        from node.model.ops.gpu.products import Bf16

        matrix = Bf16(torch.Size((_SIDE, _SIDE)), 1, device)
        matrix.take(torch.eye(_SIDE).bfloat16())
        x = torch.arange(2 * _SIDE).view(2, _SIDE).bfloat16().to(device)
        is_right = torch.equal(matrix(x), x)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever Triton, its compilers and the driver have to say
        said = " ".join(str(error).split())[:_MOST_WORDS]
        return f"Triton fails here; it needs a C compiler and Python's headers (gcc, python3-dev): {said}"
    return None if is_right else "Triton's products come out wrong here"
