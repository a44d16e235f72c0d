"""The C files beside this one as a library of this machine's, with the signatures of its functions."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
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
    "-ffp-contract=off",
)
"""The last: a sum and a product are rounded each, whatever the compiler, as they are in torch."""


class Matrix(ctypes.Structure):
    _fields_ = (
        ("strips", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("n_in", ctypes.c_long),
        ("n_out", ctypes.c_long),
        ("element", ctypes.c_int),
        ("n_matrices", ctypes.c_int),
    )


class Attention(ctypes.Structure):
    _fields_ = (
        ("queries", ctypes.c_void_p),
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("keys_at", ctypes.c_long),
        ("values_at", ctypes.c_long),
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


class Layer(ctypes.Structure):
    _fields_ = (
        ("attention_norm", ctypes.c_void_p),
        ("ffn_norm", ctypes.c_void_p),
        ("wqkv", ctypes.POINTER(Matrix)),
        ("wo", ctypes.POINTER(Matrix)),
        ("router", ctypes.POINTER(Matrix)),
        ("w13", ctypes.POINTER(ctypes.POINTER(Matrix))),
        ("w2", ctypes.POINTER(ctypes.POINTER(Matrix))),
        ("dim", ctypes.c_long),
        ("n_heads", ctypes.c_long),
        ("n_kv_heads", ctypes.c_long),
        ("head_dim", ctypes.c_long),
        ("n_experts", ctypes.c_long),
        ("n_chosen", ctypes.c_long),
        ("epsilon", ctypes.c_float),
    )


class Chunk(ctypes.Structure):
    _fields_ = (
        ("n_rows", ctypes.c_long),
        ("position", ctypes.c_long),
        ("window", ctypes.c_long),
        ("first_page", ctypes.c_long),
        ("keys_at", ctypes.c_long),
        ("n_pages", ctypes.c_long),
        ("pages", ctypes.POINTER(ctypes.c_void_p)),
    )


class Batch(ctypes.Structure):
    _fields_ = (
        ("chunks", ctypes.POINTER(Chunk)),
        ("n_chunks", ctypes.c_long),
        ("n_rows", ctypes.c_long),
        ("q_rotations", ctypes.c_void_p),
        ("k_rotations", ctypes.c_void_p),
        ("n_threads", ctypes.c_int),
    )


class Routing(ctypes.Structure):
    _fields_ = (
        ("weights", ctypes.c_void_p),
        ("chosen", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
    )


OfALayer = Callable[[Layer, Batch, int, int, int, Routing], int]
"""run_layer or attend_and_route: layer, batch, addresses of h, out and x, routing."""


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
    built.multiply.argtypes = (
        ctypes.POINTER(Matrix),
        ctypes.c_void_p,
        ctypes.c_long,
        ctypes.c_long,
        ctypes.c_void_p,
        ctypes.c_int,
    )
    built.attend.argtypes = (ctypes.POINTER(Attention),)
    for of_a_layer in (built.run_layer, built.attend_and_route):
        of_a_layer.argtypes = (
            ctypes.POINTER(Layer),
            ctypes.POINTER(Batch),
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.POINTER(Routing),
        )
    return built
