"""Tensors out of files into the model's own dtype, checked against the shapes that its args say."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from swarm.errors import LocalProtocolError


class Taker:
    """take(name, *shape): that tensor in the model's dtype, on its device. Raises: LocalProtocolError."""

    def __init__(self, tensors: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device) -> None:
        self._tensors = tensors
        self._dtype = dtype
        self._device = device

    def __call__(self, name: str, *shape: int) -> Tensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise LocalProtocolError(f"{name} is missing among the tensors to load")
        if tuple(tensor.shape) != shape:
            raise LocalProtocolError(f"{name} has shape {tuple(tensor.shape)}, where the model's args say {shape}")
        return tensor.to(self._device, self._dtype)
