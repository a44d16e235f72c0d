"""Our own kernels, in C: products that read a packed weight once, at the speed of memory, attention that reads cached
keys and values once, normalisation in one call; each with one order of sums. And a whole layer made of them.

products.c, attention.c, norm.c and layer.c are the maths; the Python file of the same name hands each of them tensors,
and compiling.py has the machine's compiler build them when they are first needed. Where they cannot be had (no
compiler, a CPU without AMX), why_absent says so and nothing else changes.
"""

from node.model.ops.native.attention import attend, fits
from node.model.ops.native.layer import Layer, Own, Rows
from node.model.ops.native.norm import normalise
from node.model.ops.native.presence import why_absent
from node.model.ops.native.products import Bf16, Int8

__all__ = [
    "Bf16",
    "Int8",
    "Layer",
    "Own",
    "Rows",
    "attend",
    "fits",
    "normalise",
    "why_absent",
]
