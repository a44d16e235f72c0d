"""Tensors that are read when they are asked for, and not kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from node.weights.loading import load_tensors
from swarm.release import TensorRange


class LazyTensors(Mapping[str, Tensor]):
    """The tensors of these ranges under the same names, each read from its file anew whenever it is asked for.

    Whoever packs them one by one needs memory for one tensor at a time, not for a layer. Raises, on asking:
    CorruptRelease.
    """

    def __init__(
        self, ranges: Mapping[str, TensorRange], root: Path, *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        self._ranges = ranges
        self._root = root
        self._dtype = dtype
        self._device = device

    def __getitem__(self, name: str) -> Tensor:
        ranges = {name: self._ranges[name]}
        return load_tensors(ranges, self._root, dtype=self._dtype, device=self._device)[name]

    def __contains__(self, name: object) -> bool:
        return name in self._ranges

    def __iter__(self) -> Iterator[str]:
        return iter(self._ranges)

    def __len__(self) -> int:
        return len(self._ranges)
