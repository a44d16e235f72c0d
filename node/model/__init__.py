"""The Mistral family's maths in plain torch: hidden state in, hidden state out, over any span of layers.

Promises that a row's result depends on the tokens before it and on nothing else: not on how the layers are split over
nodes, nor (with exact numerics to the bit, else beyond rounding) on chunks and on what is computed beside it. Does NOT
know files, neighbours, sessions, sampling or the wire, and does no IO.
"""

from node.model.batch import Chunk
from node.model.cache import KVCache
from node.model.device_memory import give_back_device_memory, is_out_of_memory
from node.model.experts import Answers, Elsewhere, ExpertStore, Steps, finish
from node.model.heat import RoutingHeat
from node.model.ops import (
    Numerics,
    fingerprint,
    greatest_logits,
    instruction_set,
    kernels,
    require_int8,
    why_no_gpu_kernels,
)
from node.model.pages import PAGE, PagePool
from node.model.transformer import SpanModel

__all__ = [
    "PAGE",
    "Answers",
    "Chunk",
    "Elsewhere",
    "ExpertStore",
    "KVCache",
    "Numerics",
    "PagePool",
    "RoutingHeat",
    "SpanModel",
    "Steps",
    "fingerprint",
    "finish",
    "give_back_device_memory",
    "greatest_logits",
    "instruction_set",
    "is_out_of_memory",
    "kernels",
    "require_int8",
    "why_no_gpu_kernels",
]
