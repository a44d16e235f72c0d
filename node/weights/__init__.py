"""Bytes on disk as tensors on a device, and synthetic releases to test everything else with.

Promises tensors equal to the files' bytes, one tensor's worth of memory at a time, from safetensors and .pth alike (a
tensor is a byte range by the time it gets here). Does NOT know which pieces carry those bytes, whether they are
verified (the caller asks only for what is), or what a layer computes.
"""

from node.weights.lazy import LazyTensors
from node.weights.loading import TORCH_DTYPES, load_tensors
from node.weights.presets import PRESETS, Preset
from node.weights.synthetic import write_preset, write_release
from node.weights.writers import WRITERS

__all__ = [
    "PRESETS",
    "TORCH_DTYPES",
    "WRITERS",
    "LazyTensors",
    "Preset",
    "load_tensors",
    "write_preset",
    "write_release",
]
