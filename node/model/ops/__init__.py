"""The kernels behind the layers: one file per back end, one seam for all of them.

A weight is put into its kernel's own layout once, when it is loaded; what multiplies by it afterwards is a Multiply.
Which kernel serves a weight is chosen here, by device, dtype and Numerics, and nowhere else. Knows no layers.
"""

from node.model.ops.exact import fingerprint
from node.model.ops.int8 import require_int8
from node.model.ops.linear import Linear
from node.model.ops.numerics import Numerics, instruction_set

__all__ = ["Linear", "Numerics", "fingerprint", "instruction_set", "require_int8"]
