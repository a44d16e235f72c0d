"""From a release's bytes to loaded layers: what this machine hosts, fetched in order and loaded as it arrives.

Promises that a layer is loaded only once every piece that carries it is verified, and that no more than one
tensor is in memory twice. Knows torrents and models; knows no sessions, no gRPC and no other node.
"""

from node.hosting.choice import choose_span
from node.hosting.holding import Holding, spans_of
from node.hosting.key_slot import own_key
from node.hosting.loading import FetchProgress, Hosted, host, load_part, servable
from node.hosting.machine import free_memory_bytes, outward_host, pick_device
from node.hosting.numerics import numerics_of, settle_profile
from node.hosting.room import choose_evictions

__all__ = [
    "FetchProgress",
    "Holding",
    "Hosted",
    "choose_evictions",
    "choose_span",
    "free_memory_bytes",
    "host",
    "load_part",
    "numerics_of",
    "outward_host",
    "own_key",
    "pick_device",
    "servable",
    "settle_profile",
    "spans_of",
]
