"""The kernels behind the layers: one file per back end, one seam for all of them.

A weight is put into its kernel's own layout once, when it is loaded; what multiplies by it afterwards is a Multiply.
Which kernel serves a weight is chosen here, by device, dtype and Numerics, and nowhere else. Knows no layers.
"""

from node.model.ops.fingerprint import fingerprint
from node.model.ops.gpu import greatest_logits
from node.model.ops.gpu import why_absent as why_no_gpu_kernels
from node.model.ops.int8 import require_int8
from node.model.ops.linear import Gate, Linear, kernels
from node.model.ops.numerics import Numerics, instruction_set

__all__ = [
    "Gate",
    "Linear",
    "Numerics",
    "fingerprint",
    "greatest_logits",
    "instruction_set",
    "kernels",
    "require_int8",
    "why_no_gpu_kernels",
]
