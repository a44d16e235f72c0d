"""Which layers to host when nobody said."""

from __future__ import annotations

import math
from collections.abc import Sequence

from swarm.errors import BadArgument
from swarm.release import ModelArgs
from swarm.terms import Span

RESERVED_SHARE = 0.25
"""Of the memory: for KV caches, activations and the rest of the machine."""


def choose_span(
    args: ModelArgs,
    hosts_per_layer: Sequence[int],
    memory_bytes: int,
    itemsize: int,
    layer_bytes_per_value: float | None = None,
) -> Span:
    """The span that fits memory_bytes and whose layers have the fewest hosts; the whole model if that fits.

    itemsize: of the embeddings and the head. layer_bytes_per_value: of the layers, where they take less (quantised).
    hosts_per_layer: nodes that host or are about to host each layer. Ties go to the span that starts first.
    Raises: BadArgument when not even one layer fits.
    """
    budget = int(memory_bytes * (1 - RESERVED_SHARE))
    embeddings = 2 * args.vocab_size * args.dim * itemsize
    layer = math.ceil(args.n_layer_params * (layer_bytes_per_value or itemsize))
    n_fitting = min(args.n_layers, max(0, budget - embeddings) // layer)
    if n_fitting == 0:
        raise BadArgument(
            f"one layer of this model takes {(layer + embeddings) / 1e9:.1f} GB, but {budget / 1e9:.1f} GB can be "
            "used; free some memory, or pick a smaller dtype or --quantize"
        )
    starts = range(args.n_layers - n_fitting + 1)
    start = min(starts, key=lambda s: (sorted(hosts_per_layer[s : s + n_fitting]), s))
    return Span(start, start + n_fitting)
