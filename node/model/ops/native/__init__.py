"""Our own kernels, in C: products that read a packed weight once, at the speed of memory, in one order of sums.

products.c is the maths, compiling.py has the machine's compiler build it when it is first needed, products.py hands it
tensors. Where one of them cannot be had (no compiler, a CPU without AMX), why_absent says so and nothing else changes.
"""

from node.model.ops.native.products import Bf16, Int8, why_absent

__all__ = ["Bf16", "Int8", "why_absent"]
