"""How good a placement and its routes are, against the best that there could be."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simulator.population import Machine, draw_machine
from simulator.world import Node
from swarm.errors import LayersUncovered
from swarm.facts import NodeFact
from swarm.routing import HOP_OVERHEAD_S, plan_route
from swarm.terms import NodeId

N_LINKS = 16
"""Round trips in a fact: to the nearest of the N_MET nodes that it met."""

N_MET = 64


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
    """Tokens per second through this placement, when every node shares its time among its layers as is best.

    A flow goes through if any set of layers, whose nodes work for it alone, takes it: by Hall's theorem for spans.
    A node in several pieces counts as if it shared its time among them by their lengths.
    """
    speed_within = np.zeros((n_layers + 1, n_layers + 1))  # [a, b]: of nodes that lie within layers a to b
    for node in nodes:
        for span in node.served:
            share = len(span) / sum(map(len, node.served))
            speed = min(share / node.machine.layer_time_s, node.machine.max_tokens_per_s * len(span))
            speed_within[: span.start + 1, span.end :] += speed
    total = float(speed_within[0, n_layers])

    def holds(flow: float) -> bool:
        worst = np.zeros(n_layers + 1)  # [b]: most that layers below b demand, plus what is idle in their gaps
        for end in range(1, n_layers + 1):
            taken = worst[end - 1] + flow
            worst[end] = max(taken, float((worst[:end] + speed_within[:end, end]).max()))
        return bool(worst[n_layers] <= total + 1e-9)

    return _largest(holds, total / n_layers)


def _largest(holds: object, high: float) -> float:
    low = 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)  # type: ignore[operator]
    return low


def route_cost(
    nodes: Sequence[Node], facts: Sequence[NodeFact], n_layers: int, now_s: float, draw: random.Random
) -> float | None:
    """A client's route by what it can know, against the best one by what is true: seconds per token, as a ratio.

    None while the model is not whole.
    """
    client = draw_machine(draw)
    machines = [node.machine for node in nodes]
    places = {node.node_id: place for place, node in enumerate(nodes)}
    met = draw.sample(nodes, min(N_MET, len(nodes)))
    rtt_s = {node.node_id: client.rtt_s(node.machine) for node in met}
    links_s = _links(nodes, draw)
    try:
        route = plan_route(facts, n_layers=n_layers, now_s=now_s, rtt_s=rtt_s, links_s=links_s, client="a client")
    except LayersUncovered:
        return None
    if not all(hop.node_id in places for hop in route.hops):
        return None
    taken = 0.0
    before = client
    for hop in route.hops:
        machine = machines[places[hop.node_id]]
        taken += before.rtt_s(machine) / 2 + HOP_OVERHEAD_S + len(hop.span) * machine.layer_time_s
        before = machine
    return (taken + before.rtt_s(client) / 2) / best_cost(nodes, client, n_layers)


def _links(nodes: Sequence[Node], draw: random.Random) -> dict[tuple[NodeId, NodeId], float]:
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
