"""How a model computes: dtype, quantisation, and whether a row's bits may depend on what is computed beside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from swarm.errors import BadArgument


@dataclass(frozen=True, slots=True)
class Numerics:
    """dtype: of hidden state, KV cache and whatever is not quantised. quantisation: of the layers' matrices; '': none.

    is_exact: a row's bits depend on the tokens before it and on nothing else: not on the other rows of its product, on
    chunks, or on the number of threads. Only for bf16 on CPUs.
    """

    dtype: torch.dtype = torch.bfloat16
    quantisation: str = ""
    is_exact: bool = False

    def __post_init__(self) -> None:
        if self.is_exact and self.dtype != torch.bfloat16:
            raise BadArgument("the exact profile computes in bf16; take --dtype bf16, or --profile fast")


def instruction_set() -> str:
    """The instructions that bf16 products run on here, by the name that a profile bears."""
    if torch.cpu._is_amx_tile_supported():
        return "amx"
    if torch.cpu._is_avx512_bf16_supported():
        return "avx512bf16"
    return torch.backends.cpu.get_cpu_capability().lower().replace(" ", "").replace("_", "")
