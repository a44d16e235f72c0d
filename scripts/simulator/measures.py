"""How good a placement and its routes are, against the best that there could be."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from node.placement.flow import capacity as flow_capacity
from node.placement.flow import shares, work_of
from simulator.population import Machine, draw_machine
from simulator.world import Node
from swarm.discovery import DiscoveryConfig
from swarm.errors import LayersUncovered
from swarm.facts import NodeFact
from swarm.routing import HOP_OVERHEAD_S, Links, plan_route, worth_measuring
from swarm.terms import NodeId, Span

N_LINKS = 16
"""Round trips in a fact: to the nearest of the N_MET nodes that it met."""

N_MET = 64

N_ASKED = DiscoveryConfig().max_asked_per_round
"""Whom a client measures before it chooses."""


def optimum(nodes: Sequence[Node], n_layers: int) -> float:
    """Tokens per second that no placement of these machines can exceed: each gives at most its speed, and to no layer
    more than what flows through the whole.
    """
    speeds = np.array([1.0 / node.machine.layer_time_s for node in nodes])
    widths = np.array([node.machine.n_layers for node in nodes])
    links = np.array([node.machine.max_tokens_per_s for node in nodes])

    def holds(flow: float) -> bool:
        return bool(np.minimum(speeds, widths * np.minimum(flow, links)).sum() >= n_layers * flow)

    return _largest(holds, float(speeds.sum()) / n_layers)


def capacity(nodes: Sequence[Node], n_layers: int) -> float:
    """Tokens per second through this placement, when every node shares its time among its layers as is best."""
    work: list[tuple[Span, float]] = []
    for node in nodes:
        if n_served := sum(map(len, node.served)):
            speed = min(1.0 / node.machine.layer_time_s, node.machine.max_tokens_per_s * n_served)
            work += shares(node.served, speed)
    return float(flow_capacity(work_of(work, n_layers)[None])[0])


def _largest(holds: object, high: float) -> float:
    low = 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)  # type: ignore[operator]
    return low


def route_cost(
    nodes: Sequence[Node], facts: Sequence[NodeFact], links_s: Links, n_layers: int, now_s: float, draw: random.Random
) -> float | None:
    """A client's route by what it can know, against the best one by what is true: seconds per token, as a ratio.

    None while the model is not whole.
    """
    client = draw_machine(draw)
    by_id = {node.node_id: node for node in nodes}
    rtt_s = {node.node_id: client.rtt_s(node.machine) for node in draw.sample(nodes, min(N_MET, len(nodes)))}
    asked = worth_measuring(facts, N_ASKED, n_layers=n_layers, now_s=now_s, rtt_s=rtt_s, links_s=links_s)
    rtt_s |= {f.node_id: client.rtt_s(by_id[f.node_id].machine) for f in asked if f.node_id in by_id}
    try:
        route = plan_route(facts, n_layers=n_layers, now_s=now_s, rtt_s=rtt_s, links_s=links_s, client="a client")
    except LayersUncovered:
        return None
    if not all(hop.node_id in by_id for hop in route.hops):
        return None
    taken = 0.0
    before = client
    for hop in route.hops:
        machine = by_id[hop.node_id].machine
        taken += before.rtt_s(machine) / 2 + HOP_OVERHEAD_S + len(hop.span) * machine.layer_time_s
        before = machine
    return (taken + before.rtt_s(client) / 2) / best_cost(nodes, client, n_layers)


def draw_links(nodes: Sequence[Node], draw: random.Random) -> Links:
    """The round trips that the nodes' facts tell."""
    links: dict[tuple[NodeId, NodeId], float] = {}
    for node in nodes:
        met = draw.sample(nodes, min(N_MET, len(nodes)))
        near = sorted((node.machine.rtt_s(other.machine), other.node_id) for other in met if other is not node)
        links |= {(node.node_id, node_id): rtt_s for rtt_s, node_id in near[:N_LINKS]}
    return links


def best_cost(nodes: Sequence[Node], client: Machine, n_layers: int) -> float:
    """Seconds per token of the best of all routes, every round trip known: by each cut and each pair of nodes."""
    bound = _near_bound(nodes, client, n_layers)
    nodes = [node for node in nodes if client.rtt_s(node.machine) + HOP_OVERHEAD_S + node.machine.layer_time_s <= bound]
    place = np.array([node.machine.place for node in nodes])
    last_mile = np.array([node.machine.last_mile_s for node in nodes])
    layer = np.array([node.machine.layer_time_s for node in nodes])
    to_client = np.array([client.rtt_s(node.machine) / 2 for node in nodes])
    on: NDArray[np.float64] = np.full(len(nodes), np.inf)
    for start, end in itertools.pairwise(_cuts(nodes, n_layers)):
        hosts = np.array([i for i, n in enumerate(nodes) if any(s.start <= start and end <= s.end for s in n.served)])
        came = np.full(len(nodes), np.inf)
        if start == 0:
            came[hosts] = to_client[hosts] + HOP_OVERHEAD_S
        else:
            sources = np.flatnonzero(on < np.inf)
            ways = np.sqrt(((place[sources, None] - place[None, hosts]) ** 2).sum(-1))
            ways += last_mile[sources, None] + last_mile[None, hosts] + HOP_OVERHEAD_S
            came[hosts] = np.minimum((on[sources, None] + ways).min(0), on[hosts])
        came[hosts] += (end - start) * layer[hosts]
        on = came
    return float((on + to_client).min())


def _near_bound(nodes: Sequence[Node], client: Machine, n_layers: int) -> float:
    """What some route costs, found quickly: at each layer stay, or take the node that looks best from the client."""
    total, at, before = 0.0, 0, client
    while at < n_layers:
        able = [(node, span) for node in nodes for span in node.served if at in span]
        if not able:
            return np.inf
        node, span = min(
            able,
            key=lambda one: (
                before.rtt_s(one[0].machine) / 2 / (one[1].end - at) + one[0].machine.layer_time_s,
                one[0].node_id,
            ),
        )
        total += before.rtt_s(node.machine) / 2 + HOP_OVERHEAD_S + (span.end - at) * node.machine.layer_time_s
        at, before = span.end, node.machine
    return total + before.rtt_s(client) / 2


def _cuts(nodes: Sequence[Node], n_layers: int) -> list[int]:
    edges = {edge for node in nodes for span in node.served for edge in (span.start, span.end)}
    return sorted({0, n_layers} | edges)
