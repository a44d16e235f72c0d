"""attention.c for tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from node.model.ops.native.library import Attention, library

_KEYS_IN_A_STEP = 32
_MAX_HEAD_DIM = 256


def fits(head_dim: int) -> bool:
    """Whether there are tiles for heads of this size."""
    return head_dim % _KEYS_IN_A_STEP == 0 and head_dim <= _MAX_HEAD_DIM


def attend(
    xq: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], first_page: int, position: int, window: int | None
) -> Tensor:
    """Causal attention of rows xq (T, H, hd), rotated and scaled, the first of them at `position` -> (T, H * hd). bf16.

    keys, values: (n_kv_heads, PAGE, hd) of the pages from first_page on, contiguous; every value in them is finite.
    A row's bits depend on its query and on the keys and values that it sees, and on nothing else.
    """
    xq = xq.contiguous()
    n_rows, n_heads, head_dim = xq.shape
    out = torch.empty(n_rows, n_heads * head_dim, dtype=torch.bfloat16)
    asked = Attention(
        xq.data_ptr(),
        ctypes.addressof(of_keys := _addresses(keys)),
        ctypes.addressof(of_values := _addresses(values)),
        0,
        0,
        out.data_ptr(),
        n_rows,
        n_heads,
        keys[0].shape[0],
        head_dim,
        position,
        window or 0,
        first_page,
        len(keys),
        torch.get_num_threads(),
    )
    status = library().attend(ctypes.byref(asked))
    del of_keys, of_values
    if status:
        raise MemoryError("there is no memory for the rows of attention")
    return out


def _addresses(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
