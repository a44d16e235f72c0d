"""What this machine has: devices and memory."""

from __future__ import annotations

import psutil
import torch

from swarm.errors import BadArgument


def pick_device(name: str) -> torch.device:
    """'auto': CUDA, else Apple's MPS, else the CPU. Raises: BadArgument when the named one is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, is_there in there.items() if is_there)
    if not there[name]:
        raise BadArgument(f"this machine (or this build of torch) has no {name}; use --device auto")
    return torch.device(name)


def free_memory_bytes(device: torch.device) -> int:
    """What the device that holds the weights and the KV caches has left."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
