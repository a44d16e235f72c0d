"""The Mistral family's maths in plain torch: hidden state in, hidden state out, over any span of layers.

Promises that a row's result depends on the tokens before it and on nothing else: not on how the layers are split over
nodes, nor (beyond rounding) on how a prompt is cut into chunks. Does NOT know files, neighbours, sessions, sampling or
the wire, and does no IO.
"""

from node.model.cache import KVCache
from node.model.transformer import SpanModel

__all__ = ["KVCache", "SpanModel"]
