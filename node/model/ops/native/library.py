"""The C files beside this one as a library of this machine's, with the signatures of its functions."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

from node.model.ops.native.compiling import load_compiled

_FLAGS = (
    "-mavx512f",
    "-mavx512bw",
    "-mavx512dq",
    "-mavx512vl",
    "-mavx512bf16",
    "-mamx-tile",
    "-mamx-bf16",
    "-mamx-int8",
)


class Product(ctypes.Structure):
    _fields_ = (
        ("rows", ctypes.c_void_p),
        ("strips", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("n_rows", ctypes.c_long),
        ("row_stride", ctypes.c_long),
        ("n_in", ctypes.c_long),
        ("n_out", ctypes.c_long),
        ("element", ctypes.c_int),
        ("n_matrices", ctypes.c_int),
        ("n_threads", ctypes.c_int),
    )


class Attention(ctypes.Structure):
    _fields_ = (
        ("queries", ctypes.c_void_p),
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("n_rows", ctypes.c_long),
        ("n_heads", ctypes.c_long),
        ("n_kv_heads", ctypes.c_long),
        ("head_dim", ctypes.c_long),
        ("position", ctypes.c_long),
        ("window", ctypes.c_long),
        ("first_page", ctypes.c_long),
        ("n_pages", ctypes.c_long),
        ("n_threads", ctypes.c_int),
    )


@cache
def library() -> ctypes.CDLL:
    """Built at the first call, where no earlier process did. Raises: CannotCompile."""
    built = load_compiled(Path(__file__).parent, _FLAGS)
    built.pack.restype = None
    built.pack.argtypes = (ctypes.c_void_p, ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_long, ctypes.c_long)
    built.normalise.restype = None
    built.normalise.argtypes = (
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_float,
        ctypes.c_void_p,
        ctypes.c_long,
        ctypes.c_long,
        ctypes.c_int,
    )
    built.multiply.argtypes = (ctypes.POINTER(Product),)
    built.attend.argtypes = (ctypes.POINTER(Attention),)
    return built
