"""How a model computes: dtype, quantisation, and whether a row's bits may depend on what is computed beside it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from swarm.errors import BadArgument

_BYTES_PER_VALUE = {"": None, "int8": 1.0, "int4": 0.625}
"""Of a quantised matrix, int4's scales included; None: the dtype's own."""


@dataclass(frozen=True, slots=True)
class Numerics:
    """dtype: of hidden state, KV cache and whatever is not quantised. quantisation: '', int8 or int4, of the matrices
    of attention and experts; with bf16 only, on CPUs and on GPUs that run our own kernels (which quantise no rows).

    is_exact: a row's bits depend on the tokens before it and on nothing else: not on the other rows of its product, on
    chunks, or on the number of threads. Only for bf16 on CPUs, with matrices in bf16 or int8.
    """

    dtype: torch.dtype = torch.bfloat16
    quantisation: str = ""
    is_exact: bool = False

    def __post_init__(self) -> None:
        if self.is_exact and self.dtype != torch.bfloat16:
            raise BadArgument("the exact profile computes in bf16; take --dtype bf16, or --profile fast")
        if self.quantisation not in _BYTES_PER_VALUE:
            raise BadArgument(f"quantisation {self.quantisation!r} is unknown; choose int8 or int4, or leave it away")
        if self.quantisation and self.dtype != torch.bfloat16:
            raise BadArgument("quantised matrices multiply rows of bf16; take --dtype bf16")
        if self.quantisation == "int4" and self.is_exact:
            raise BadArgument("int4 promises no bits; take --quantize int8, or --profile fast")

    @property
    def without_quantisation(self) -> Numerics:
        """For the router and the head: a few logits decide much there, and there is little to save."""
        return dataclasses.replace(self, quantisation="")

    @property
    def layer_bytes_per_value(self) -> float:
        """Memory that a layer takes, by its number of parameters."""
        return _BYTES_PER_VALUE[self.quantisation] or self.dtype.itemsize


def instruction_set() -> str:
    """The instructions that bf16 products run on here, by the name that a profile bears."""
    if torch.cpu._is_amx_tile_supported():
        return "amx"
    if torch.cpu._is_avx512_bf16_supported():
        return "avx512bf16"
    return torch.backends.cpu.get_cpu_capability().lower().replace(" ", "").replace("_", "")
