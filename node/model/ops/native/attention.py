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


def attend(xq: Tensor, pages: Sequence[Tensor], nth: int, first_page: int, position: int, window: int | None) -> Tensor:
    """Causal attention of rows xq (T, H, hd), rotated and scaled, the first of them at `position` -> (T, H * hd). bf16.

    pages: those from first_page on, bf16 (layers, 2, KVH, PAGE, hd), contiguous, of which the nth layer is read; every
    value in them is finite. A row's bits depend on its query and on the keys and values that it sees, on nothing else.
    """
    xq = xq.contiguous()
    n_rows, n_heads, head_dim = xq.shape
    _, _, n_kv_heads, page, _ = pages[0].shape
    out = torch.empty(n_rows, n_heads * head_dim, dtype=torch.bfloat16)
    addresses = (ctypes.c_void_p * len(pages))(*(tensor.data_ptr() for tensor in pages))
    of_one = n_kv_heads * page * head_dim  # keys of a layer, or values
    asked = Attention(
        xq.data_ptr(),
        ctypes.addressof(addresses),
        ctypes.addressof(addresses),
        2 * nth * of_one,
        (2 * nth + 1) * of_one,
        out.data_ptr(),
        n_rows,
        n_heads,
        n_kv_heads,
        head_dim,
        position,
        window or 0,
        first_page,
        len(pages),
        torch.get_num_threads(),
    )
    if library().attend(ctypes.byref(asked)):
        raise MemoryError("there is no memory for the rows of attention")
    return out
