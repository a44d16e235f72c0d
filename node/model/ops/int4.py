"""int4 weights and bf16 rows, on CPUs: for models that would not fit otherwise.

Every 32 values of an output channel share a scale and a middle. Few rows go through torch's kernel, which reads 5 bits
a value but unpacks the weight anew for every few rows; for many rows the weight becomes bf16 first, part by part.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 32
_MIDDLE = 8
_TILE_OUT = 64
"""The kernel takes output channels in tiles; a weight is padded with zeros to whole tiles and whole groups."""

_SLAB_VALUES = 1 << 18
"""Values packed at a time: they take 8 bytes each meanwhile, and those stay in a core's cache."""

_MANY_ROWS = 64
"""From here on unpacking once costs less (14336 x 4096: 128 rows in 0.5 of the time, 512 in 0.2)."""

_TILES_AT_A_TIME = 4
"""Unpacked parts of 256 output channels stay in a core's cache."""

_pack = torch.ops.aten._convert_weight_to_int4pack_for_cpu.default
_multiply = torch.ops.aten._weight_int4pack_mm_for_cpu.default


class Int4:
    """weight (out, in) bf16 -> a Multiply of bf16 rows."""

    __slots__ = ("_n_out", "_n_padding", "_packed", "_scales")

    def __init__(self, weight: Tensor) -> None:
        self._n_out, n_in = weight.shape
        self._n_padding = -n_in % GROUP
        n_out, n_in = self._n_out + -self._n_out % _TILE_OUT, n_in + self._n_padding
        self._packed = torch.empty(n_out, n_in // 2, dtype=torch.uint8)
        self._scales = torch.empty(n_in // GROUP, n_out, 2, dtype=torch.bfloat16)
        height = max(1, _SLAB_VALUES // n_in // _TILE_OUT) * _TILE_OUT
        for row in range(0, n_out, height):
            slab = weight[row : row + height]
            slab = F.pad(slab, (0, self._n_padding, 0, -slab.shape[0] % _TILE_OUT))
            values, scales = quantise_groups(slab)
            self._packed[row : row + height] = _pack(values, 1)
            self._scales[:, row : row + height] = scales

    def __call__(self, x: Tensor) -> Tensor:
        if self._n_padding:
            x = F.pad(x, (0, self._n_padding))
        if x.shape[0] >= _MANY_ROWS and _knows_layout():
            out = self._by_parts(x)
        else:
            out = _multiply(x.contiguous(), self._packed, GROUP, self._scales)
        return out if out.shape[1] == self._n_out else out[:, : self._n_out].contiguous()

    def silu(self, x: Tensor) -> Tensor:
        return F.silu(self(x), inplace=True)

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        return self(x).mul_(other)

    def _by_parts(self, x: Tensor) -> Tensor:
        out = x.new_empty(x.shape[0], self._packed.shape[0])
        height = _TILES_AT_A_TIME * _TILE_OUT
        for column in range(0, out.shape[1], height):
            columns = slice(column, column + height)
            values = unpack(self._packed[columns]).unflatten(0, (-1, GROUP)).bfloat16()  # (G, GROUP, n)
            scale, middle = (part.contiguous() for part in self._scales[:, columns].unsqueeze(1).unbind(-1))
            weight = torch.addcmul(middle, values, scale)  # (G, GROUP, n), rounded once
            out[:, columns] = x @ weight.flatten(0, 1)
        return out


def unpack(packed: Tensor) -> Tensor:
    """uint8 (n, in / 2) as the kernel packs it on CPUs with AVX512, whole tiles -> int8 (in, n) in -8..7.

    A tile has 32 bytes per input: the first 32 channels in the lower halves, the others in the upper.
    """
    tiles = packed.view(-1, 2 * packed.shape[1], _TILE_OUT // 2).transpose(0, 1)  # (n, in / 2) -> (in, tiles, 32)
    values = torch.empty(*tiles.shape[:2], 2, _TILE_OUT // 2, dtype=torch.uint8)
    torch.bitwise_and(tiles, 15, out=values[:, :, 0])
    torch.bitwise_right_shift(tiles, 4, out=values[:, :, 1])
    return values.view(torch.int8).sub_(_MIDDLE).flatten(1)


@cache
def _knows_layout() -> bool:
    """Whether this CPU's packed form is the one that unpack knows."""
    values = torch.randint(0, 16, (2 * _TILE_OUT, GROUP), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    return torch.equal(unpack(_pack(values, 1)), (values - _MIDDLE).to(torch.int8).T)


def quantise_groups(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight (out, in) -> int32 (out, in) in 0..15, and bf16 (in / GROUP, out, 2): a group's scale s and middle m.

    weight is about (values - 8) * s + m.
    """
    groups = weight.float().unflatten(1, (-1, GROUP))  # (out, in) -> (out, in / GROUP, GROUP)
    least, most = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)  # aminmax takes 5 times as long
    scale = ((most - least) / 15).clamp_min_(torch.finfo(torch.bfloat16).tiny).bfloat16()
    middle = (least + _MIDDLE * scale).bfloat16()
    values = (groups - middle).div_(scale).round_().add_(_MIDDLE).clamp_(0, 15).to(torch.int32)
    return values.flatten(1), torch.cat((scale, middle), -1).transpose(0, 1)
