"""One look at a swarm, as plain values: what the nodes say, the best route over them, and what a gateway adds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swarm.cli.generation import route_fields
from swarm.cli.status import node_fields, status_fields
from swarm.cli.top_gateway import Gateway, GatewayLook
from swarm.errors import LayersUncovered
from swarm.facts import NodeFact, Route

if TYPE_CHECKING:
    from swarm.client import Client, SwarmStatus


@dataclass(frozen=True, slots=True)
class Look:
    """at_s: when, in seconds since the Unix epoch. route: the best one now; None where layers lack hosts.

    tokens_per_s: of one session along that route, as estimated from what the nodes measured; 0.0 without a route, and
    while some hop has not measured yet.
    """

    seen: SwarmStatus
    at_s: float
    route: Route | None
    tokens_per_s: float
    gateway: GatewayLook | None

    @property
    def free_sessions(self) -> int:
        """How many more sessions every layer can take: the least over layers of what their hosts have free."""
        free = [0] * self.seen.n_layers
        for fact in self.seen.nodes:
            if fact.n_layers == self.seen.n_layers:
                for layer_idx in (i for span in (*fact.served_spans, *fact.served_trunks) for i in span):
                    free[layer_idx] += fact.free_sessions
        return min(free, default=0)


def look_at(client: Client, gateway: Gateway | None) -> Look:
    """Ask the swarm, and the gateway where one is named. Raises: SwarmError."""
    seen = client.status()
    at_s = time.time()
    route = best_route(seen, at_s)
    asked = None if gateway is None else gateway.look()
    return Look(seen, at_s, route, route_tokens_per_s(route, seen.nodes), asked)


def best_route(seen: SwarmStatus, now_s: float) -> Route | None:
    """The route that a new session would take now, before the client's own measurements."""
    from swarm.routing import plan_route

    facts = [fact for fact in seen.nodes if fact.n_layers == seen.n_layers]
    try:
        return plan_route(facts, n_layers=seen.n_layers, now_s=now_s)
    except LayersUncovered:
        return None


def route_tokens_per_s(route: Route | None, facts: tuple[NodeFact, ...]) -> float:
    if route is None:
        return 0.0
    from swarm.routing import route_cost_s

    on_route = {hop.node_id for hop in route.hops}
    if any(fact.layer_time_s <= 0 for fact in facts if fact.node_id in on_route):
        return 0.0
    return 1 / route_cost_s(route, facts)


def node_tokens_per_s(fact: NodeFact) -> float:
    """One session's tokens per second through all layers that the node hosts; 0.0 while it has measured nothing."""
    seconds = fact.layer_time_s * sum(len(span) for span in fact.spans)
    return 1 / seconds if seconds > 0 else 0.0


def look_fields(look: Look) -> dict[str, Any]:
    """A look as JSON values: the fields of `swarm status --json`, and what is only here."""
    return {
        **status_fields(look.seen),
        "at_s": look.at_s,
        "nodes": [
            {**node_fields(fact), "tokens_per_s": node_tokens_per_s(fact), "said_s_ago": said_s_ago(fact, look.at_s)}
            for fact in look.seen.nodes
        ],
        "free_sessions": look.free_sessions,
        "route": None if look.route is None else route_fields(look.route),
        "tokens_per_s": look.tokens_per_s,
        "gateway": None if look.gateway is None else look.gateway.fields(),
    }


def said_s_ago(fact: NodeFact, now_s: float) -> float:
    """How old the node's word is; 0.0 where its clock is ahead of ours."""
    return max(0.0, now_s - fact.issued_at_s)
