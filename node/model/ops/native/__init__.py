"""Our own kernels, in C: products that read a packed weight once, at the speed of memory, and attention that reads the
cached keys and values once; both with one order of sums.

products.c and attention.c are the maths, compiling.py has the machine's compiler build them when they are first needed,
products.py and attention.py hand them tensors. Where they cannot be had (no compiler, a CPU without AMX), why_absent
says so and nothing else changes.
"""

from node.model.ops.native.attention import attend, fits
from node.model.ops.native.presence import why_absent
from node.model.ops.native.products import Bf16, Int8

__all__ = ["Bf16", "Int8", "attend", "fits", "why_absent"]
