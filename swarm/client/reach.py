"""Can others dial this participant, and if not, through whom? Asked of nodes that were met, and decided from facts.

Shared by the node and by `swarm netcheck`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from swarm.errors import SwarmError
from swarm.facts import NodeFact, NodeState, Reachability
from swarm.rpc import Dialer
from swarm.terms import Address, NodeId, machine_of

MAX_ASKED = 3
"""Nodes asked to dial back: one that lies is outvoted by two that do not."""

ASK_TIMEOUT_S = 8.0

MAX_HOSTS = 8
"""Interfaces of one machine that count: some have dozens, for containers."""

_INSIDE = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8"),
        *("fc00::/7", "fe80::/10", "::1/128"),
    )
)
"""Private networks, carriers' NATs, link-local and loopback: RFC 1918, 6598, 3927, 4193, 4291."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Where others dial a node, and what is known of their success. relay: through whom, None for directly."""

    address: Address
    reachability: Reachability = Reachability.UNKNOWN
    relay: NodeId | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What one node said that dialled this participant back. by: the host that was asked; host: as it saw this
    participant; problem: '' where it reached it.
    """

    by: str
    host: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of being dialled back. host: as the others saw it, '' while nobody said. problem: of an unreachable
    one, what they met; where nobody could say, why one could not. n_asked: how many were asked; n_answers: how many
    could say.
    """

    reachability: Reachability
    host: str = ""
    problem: str = ""
    n_answers: int = 0
    n_asked: int = 0


def reach_fields(reach: Reach, verdict: Verdict) -> dict[str, str | int | None]:
    """For programs: a node's reach, and what it is known by."""
    known = {"reachability": reach.reachability.value, "problem": verdict.problem, "n_answers": verdict.n_answers}
    return {"address": str(reach.address), "relay": reach.relay, **known}


def is_inside(host: str) -> bool:
    """The host is of a network that the internet does not route to."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return any(address in network for network in _INSIDE if network.version == address.version)


def own_hosts() -> list[str]:
    """The IPv4 addresses of this machine's interfaces, that which leads outwards first; loopback where it has none."""
    import ifaddr

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1, RFC 5737; connecting a UDP socket sends nothing
            outward = [str(probe.getsockname()[0])]
        except OSError:  # a network of its own, without a way out
            outward = []
    found = [str(ip.ip) for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4]
    others = [host for host in found if not ipaddress.ip_address(host).is_loopback]
    return list(dict.fromkeys([*outward, *others]))[:MAX_HOSTS] or ["127.0.0.1"]


def outward_host() -> str:
    """The address that this machine has for others."""
    return own_hosts()[0]


async def be_dialled(dialer: Dialer, nodes: Sequence[NodeFact], own: Address, network: str) -> Verdict:
    """Have up to MAX_ASKED of these nodes dial this participant back at the port of `own`, and count their answers.

    own: what it calls itself. nodes: that were met, in order of preference. network: on wan, what a node of the same
    local network sees does not count: it says nothing about the others.
    """
    asked = [fact.address for fact in nodes if not fact.address.target][:MAX_ASKED]
    answers = await asyncio.gather(*(_ask(dialer, address, own.port) for address in asked))
    told = [answer for answer in answers if isinstance(answer, Seen)]
    telling = [seen for seen in told if not (network == "wan" and is_inside(seen.host))]
    if not telling:
        why = next((answer for answer in answers if isinstance(answer, str)), "")
        return Verdict(Reachability.UNKNOWN, problem=why, n_asked=len(asked))
    return replace(count_answers(telling, {own.host, *own_hosts()}), n_asked=len(asked))


def count_answers(answers: Sequence[Seen], own_hosts: Collection[str]) -> Verdict:
    """The most common outcome wins, and of equal ones that which did not reach this participant.

    own_hosts: where it knows that it is. Elsewhere it was reached only if two nodes at different places say so: one
    that lies could aim a whole swarm at a victim.
    """
    if not answers:
        return Verdict(Reachability.UNKNOWN)
    places: dict[str, set[str]] = {}
    for seen in answers:
        if not seen.problem:
            places.setdefault(seen.host, set()).add(_place(seen.by))
    credible = [seen for seen in answers if seen.problem or seen.host in own_hosts or len(places[seen.host]) > 1]
    if not credible:
        host = min(seen.host for seen in answers)
        problem = f"reached at {host}, says one place alone; name it with --advertise HOST:PORT if it is this node's"
        return Verdict(Reachability.UNREACHABLE, host, problem, len(answers))
    outcomes = Counter((bool(seen.problem), seen.host) for seen in credible)
    is_missed, host = max(outcomes, key=lambda outcome: (outcomes[outcome], outcome))
    if not is_missed:
        return Verdict(Reachability.REACHABLE, host, n_answers=len(answers))
    problem = next(seen.problem for seen in credible if seen.problem and seen.host == host)
    return Verdict(Reachability.UNREACHABLE, host, problem, len(answers))


def _place(host: str) -> str:
    """The same for whatever one participant may easily call its host: its names, and the addresses of its network."""
    try:
        return machine_of(host)
    except ValueError:
        return "a name"


def relays_for(facts: Iterable[NodeFact], rtts_s: Mapping[NodeId, float], without: frozenset[NodeId]) -> list[NodeFact]:
    """Who could be a relay, the best first: those that others were seen to reach, the nearest of them.

    Pure. without: this node itself, and those that failed it lately.
    """
    fit = [
        fact
        for fact in facts
        if fact.relay_places > 0
        and not fact.address.target
        and fact.reachability is not Reachability.UNREACHABLE
        and fact.state in (NodeState.JOINING, NodeState.SERVING)
        and fact.node_id not in without
    ]
    return sorted(
        fit,
        key=lambda fact: (
            fact.reachability is not Reachability.REACHABLE,
            rtts_s.get(fact.node_id, float("inf")),
            fact.node_id,
        ),
    )


def own_address(listening: Address, advertise: Address | None, mapped: Address | None) -> Address:
    """What to call this participant before anybody has dialled it: as told, as mapped, or as its interface says."""
    if advertise is not None:
        return advertise
    if mapped is not None:
        return mapped
    return Address(outward_host(), listening.port) if listening.is_unspecified else listening


async def _ask(dialer: Dialer, address: Address, port: int) -> Seen | str:
    """What the node there says; of one that does not say, why."""
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            connection = await dialer.connect(address)
            return Seen(address.host, *await connection.dial_back(port, ASK_TIMEOUT_S))
    except SwarmError as error:
        return error.message
    except TimeoutError:
        return f"{address} did not say within {ASK_TIMEOUT_S:g} s"
