"""What works between this machine and the others: asked of the router, the DHT, the local network and the nodes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack

from swarm.client.network import NetworkConfig, RpcFactsPort
from swarm.client.reach import Verdict, be_dialled, is_inside, outward_host, own_address, relays_for
from swarm.discovery import Discovery
from swarm.errors import SwarmError
from swarm.facts import NodeFact, Reachability
from swarm.identity import NodeKey, issue
from swarm.rpc import Dialer, RpcServer
from swarm.terms import Address, Finding, Infohash, counted, short_id
from swarm.torrent import Mapped, TorrentSession

MAPPING_TIMEOUT_S = 5.0
"""How long a router may take to forward a port."""

DHT_TIMEOUT_S = 3.0
ASK_AGAIN_S = 0.5


async def check_network(
    network: NetworkConfig, listen: Address, peers: Sequence[Address], release: Infohash | None, timeout_s: float
) -> list[Finding]:
    """Serve a port for a moment, as a node would, and find out who reaches it.

    listen: the port to try. peers, release: whom to ask, and whose nodes to look for; without any of them only this
    machine and its router are looked at. Raises: ListenError.
    """
    async with AsyncExitStack() as stack:
        torrents = await stack.enter_async_context(TorrentSession(network.torrent))
        key = NodeKey.generate()
        server = RpcServer(issue(key), network.rpc)
        bound = await server.start(listen)
        stack.push_async_callback(server.stop)
        dialer = await stack.enter_async_context(Dialer(issue(key), network.rpc))
        mapping = torrents.map_port(bound.port)
        places = network.rendezvous(torrents, listen)
        discovery = Discovery(
            release or Infohash("0" * 40), RpcFactsPort(dialer), network.discovery,
            rendezvous=places if release else (), static_peers=peers,
        )  # fmt: skip
        stack.push_async_callback(discovery.close)
        mapped, nodes, heard = await asyncio.gather(
            mapping.settle(0.0 if bound.is_loopback else MAPPING_TIMEOUT_S),
            _meet(discovery, dialer, peers, release, timeout_s),
            _hear_dht(torrents, timeout_s),
        )
        own = own_address(bound, None, mapped.address)
        verdict = await be_dialled(dialer, nodes, own, network.name)
        rtts_s = discovery.rtts.rtts_s()
        relays = relays_for(nodes, rtts_s, frozenset())
        return [
            _address(network, bound),
            Finding("torrent", "ok", f"BitTorrent and the DHT listen on port {torrents.port}"),
            _dht(network, heard, torrents.describe_dht()),
            *_lan(network, discovery),
            _nodes(nodes, release, discovery.describe_attempts() if peers or release else "nobody was named"),
            _mapping(network, mapped, bound.port),
            _outward(verdict, nodes),
            _reach(verdict, bound, own.port, mapped, bool(relays)),
            _relay(verdict, relays),
        ]


async def _meet(
    discovery: Discovery, dialer: Dialer, peers: Sequence[Address], release: Infohash | None, timeout_s: float
) -> list[NodeFact]:
    """The nodes that answer, by their own word: of the release, or, without one, those that were named."""
    try:
        async with asyncio.timeout(timeout_s):
            if release is not None:
                await discovery.refresh()
                while not discovery.table.confirmed():
                    await asyncio.sleep(ASK_AGAIN_S)
                    await discovery.refresh()
                return list(discovery.table.confirmed())
            described = await asyncio.gather(*(_describe(discovery, dialer, peer) for peer in peers))
            return [fact for fact in described if fact is not None]
    except TimeoutError:
        return list(discovery.table.confirmed())


async def _describe(discovery: Discovery, dialer: Dialer, peer: Address) -> NodeFact | None:
    try:
        connection = await dialer.connect(peer)
        signed = await connection.describe(5.0)
    except SwarmError as error:
        discovery.outcomes[str(peer)] = error.message
        return None
    return signed.fact


async def _hear_dht(torrents: TorrentSession, timeout_s: float) -> bool:
    """Whether some DHT node answers: whether it would take an announcement, of nothing that anybody looks for."""
    return await torrents.dht_announce(os.urandom(20), torrents.port, timeout_s=min(timeout_s, DHT_TIMEOUT_S))


def _address(network: NetworkConfig, bound: Address) -> Finding:
    if bound.is_loopback:
        return Finding("address", "ok", f"gRPC listens on {bound}, for this machine only")
    host = outward_host() if bound.is_unspecified else bound.host
    if network.name == "wan" and is_inside(host):
        return Finding("address", "note", f"this machine is {host}, behind a router: others see another address")
    return Finding("address", "ok", f"this machine is {host}")


def _dht(network: NetworkConfig, heard: bool, words: str) -> Finding:
    if not network.torrent.dht:
        return Finding("dht", "note", "off on this network")
    if heard:
        return Finding("dht", "ok", words)
    mend = "name a node of it with --bootstrap HOST:PORT"
    mend += "" if network.name == "loopback" else ", and let UDP out of this network"
    return Finding("dht", "note", f"nobody answers ({words})", mend)


def _lan(network: NetworkConfig, discovery: Discovery) -> list[Finding]:
    if network.name != "lan":
        return []
    words = discovery.outcomes.get("LAN", "not looked up: no MAGNET was named")
    return [Finding("lan", "ok" if "address" in words else "note", f"multicast: {words}")]


def _nodes(nodes: Sequence[NodeFact], release: Infohash | None, attempts: str) -> Finding:
    if nodes:
        return Finding(
            "nodes", "ok", f"{counted(len(nodes), 'node')} met: {', '.join(short_id(n.node_id) for n in nodes[:8])}"
        )
    other = "give the MAGNET whose nodes to look for" if release is None else "start one: `swarm node start MAGNET`"
    mend = f"name one with --peer HOST:PORT, or {other}"
    return Finding("nodes", "unknown", f"no node was met ({attempts})", mend)


def _mapping(network: NetworkConfig, mapped: Mapped, port: int) -> Finding:
    if mapped.address is not None:
        return Finding("mapping", "ok", f"the router forwards {mapped.address} to port {port} here, by {mapped.by}")
    if mapped.by:
        return Finding("mapping", "ok", f"the router forwards port {port}, by {mapped.by}")
    if not (network.torrent.upnp or network.torrent.natpmp):
        return Finding("mapping", "note", f"not asked for: --network {network.name} needs no router")
    mend = f"turn on UPnP or NAT-PMP on the router, or forward TCP port {port} to this machine yourself"
    return Finding("mapping", "note", mapped.problem, mend)


def _outward(verdict: Verdict, nodes: Sequence[NodeFact]) -> Finding:
    if verdict.host:
        return Finding("outward", "ok", f"others see this machine as {verdict.host}")
    return Finding("outward", "unknown", "no node said" if nodes else "nobody to ask")


def _reach(verdict: Verdict, bound: Address, port: int, mapped: Mapped, has_relay: bool) -> Finding:
    n_asked = f"{counted(verdict.n_answers, 'node')} dialled back"
    if verdict.reachability is Reachability.REACHABLE:
        return Finding("reach", "ok", f"{n_asked}, and reached {Address(verdict.host, port)}")
    if verdict.reachability is Reachability.UNKNOWN:
        why = f": {verdict.problem}" if verdict.problem else ""
        return Finding("reach", "unknown", f"nobody could dial back{why}")
    how = "open it in the firewall" if mapped.address or bound.is_loopback else "forward it on the router, or open it"
    mend = f"TCP port {port} must be let in: {how}; choose it with --listen HOST:PORT"
    return Finding("reach", "note" if has_relay else "bad", f"{n_asked}: {verdict.problem}", mend)


def _relay(verdict: Verdict, relays: Sequence[NodeFact]) -> Finding:
    if not relays:
        state = "bad" if verdict.reachability is Reachability.UNREACHABLE else "note"
        mend = "let a node that others reach be one: `swarm node start MAGNET --relay 4MB/s`" if state == "bad" else ""
        return Finding("relay", state, "no node offers to be a relay", mend)
    best, others = relays[0], f", of {len(relays)} that offer it" if len(relays) > 1 else ""
    use = "a node here would serve through" if verdict.reachability is Reachability.UNREACHABLE else "were it needed:"
    return Finding("relay", "ok", f"{use} node {short_id(best.node_id)} at {best.address}{others}")
