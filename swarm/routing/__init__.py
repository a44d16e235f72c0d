"""Facts -> Route: the fastest (or the widest) chain of nodes that computes the whole model, by what nodes say.

Pure: the clock is an argument, the same facts in any order give the same route. The room does NOT check signatures
(swarm.discovery hands over facts that it has checked), dial anybody, measure, or remember: which nodes failed and which
route was taken last is the caller's to know.
"""

from __future__ import annotations

from swarm.routing.belief import believe, links_of, steady
from swarm.routing.costs import DEFAULT_LAYER_TIME_S, HOP_OVERHEAD_S, Links
from swarm.routing.coverage import coverage, expert_coverage, layer_ranges
from swarm.routing.experts import describe_missing, layers_served, missing_experts
from swarm.routing.measuring import worth_measuring
from swarm.routing.mend import mend_route
from swarm.routing.plan import plan_route, route_cost_s

__all__ = [
    "DEFAULT_LAYER_TIME_S",
    "HOP_OVERHEAD_S",
    "Links",
    "believe",
    "coverage",
    "describe_missing",
    "expert_coverage",
    "layer_ranges",
    "layers_served",
    "links_of",
    "mend_route",
    "missing_experts",
    "plan_route",
    "route_cost_s",
    "steady",
    "worth_measuring",
]
