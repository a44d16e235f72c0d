"""Hidden state as it travels (Rows) and as it is computed on (tensors)."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from swarm.errors import RemoteProtocolError
from swarm.messages import Rows

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)
    torch.frombuffer(bytes(4), dtype=torch.float32)
    # torch warns once in a process of buffers that cannot be written; the layers never write into their input.


def tensor_of(rows: Rows, dim: int, device: torch.device) -> Tensor:
    """Rows -> (T, dim) on device, in the dtype that they travelled in; shares their memory on a CPU.

    Raises: RemoteProtocolError when the length is not n_rows * dim * itemsize.
    """
    dtype = DTYPES[rows.dtype]
    expected = rows.n_rows * dim * dtype.itemsize
    if len(rows.data) != expected:
        raise RemoteProtocolError(
            f"{rows.n_rows} rows of {dim} x {rows.dtype} are {expected} bytes, but {len(rows.data)} came"
        )
    flat = torch.frombuffer(rows.data, dtype=dtype)
    return flat.view(rows.n_rows, dim).to(device)


def rows_of(h: Tensor) -> Rows:
    """(T, dim) -> Rows in the tensor's own dtype, which must be one that travels."""
    contiguous = h.detach().cpu().contiguous()
    return Rows(h.shape[0], _NAMES[h.dtype], contiguous.view(torch.uint8).numpy().data.cast("B"))
