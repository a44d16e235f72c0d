"""Whether this machine runs our own kernels."""

from __future__ import annotations

import platform
from functools import cache

import torch

from node.model.ops.native.compiling import CannotCompile
from node.model.ops.native.library import library
from node.model.ops.native.products import is_right


@cache
def why_absent() -> str | None:
    """None where this machine runs these kernels; else why not, in words. The first call may take a compiler's time."""
    if platform.system() != "Linux" or not torch.cpu._is_amx_tile_supported():
        return "this CPU has no AMX"
    if not torch.cpu._is_avx512_bf16_supported():
        return "this CPU has no AVX512-BF16"
    try:
        built = library()
    except CannotCompile as error:
        return f"no C compiler built this project's own ({error})"
    if built.request_tiles():
        return "this system's kernel does not grant AMX"
    return None if is_right() else "what the C compiler built computes something else"
