"""Facts -> Route: the fastest chain of nodes that computes the whole model, by what the nodes say of themselves.

Pure: the clock is an argument, the same facts in any order give the same route. The room does NOT check signatures
(swarm.discovery hands over facts that it has checked), dial anybody, remember failures (the caller excludes), or spread
load between clients beyond refusing full nodes.
"""

from __future__ import annotations

from swarm.routing.coverage import coverage, expert_coverage, layer_ranges
from swarm.routing.experts import describe_missing, missing_experts
from swarm.routing.mend import mend_route
from swarm.routing.plan import DEFAULT_LAYER_TIME_S, HOP_OVERHEAD_S, plan_route

__all__ = [
    "DEFAULT_LAYER_TIME_S",
    "HOP_OVERHEAD_S",
    "coverage",
    "describe_missing",
    "expert_coverage",
    "layer_ranges",
    "mend_route",
    "missing_experts",
    "plan_route",
]
