"""From a release's bytes to loaded layers: what this machine hosts, fetched in order and loaded as it arrives.

Promises that a layer is loaded only once every piece that carries it is verified, and that no more than one
tensor is in memory twice. Knows torrents and models; knows no sessions, no gRPC and no other node.
"""

from node.hosting.budget import cache_budget, layers_that_fit, measure_layer_time
from node.hosting.holding import Holding, spans_of
from node.hosting.key_slot import own_key
from node.hosting.loading import FetchProgress, Hosted, host, load_part, regroup, servable, want_held
from node.hosting.machine import free_memory_bytes, pick_device
from node.hosting.memory import give_back_freed_memory
from node.hosting.numerics import numerics_of, settle_profile
from node.hosting.sharing import introduce, tell_sharing

__all__ = [
    "FetchProgress",
    "Holding",
    "Hosted",
    "cache_budget",
    "free_memory_bytes",
    "give_back_freed_memory",
    "host",
    "introduce",
    "layers_that_fit",
    "load_part",
    "measure_layer_time",
    "numerics_of",
    "own_key",
    "pick_device",
    "regroup",
    "servable",
    "settle_profile",
    "spans_of",
    "tell_sharing",
    "want_held",
]
