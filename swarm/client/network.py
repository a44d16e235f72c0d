"""How far a participant reaches: this machine, the local network, or the world; and what each room makes of that.

Shared by the two composition roots, the client and the node.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from swarm.client.reach import own_hosts
from swarm.discovery import DiscoveryConfig, LanRendezvous, Rendezvous
from swarm.errors import BadArgument
from swarm.facts import Answer, Known, SignedFact
from swarm.rpc import Dialer, RpcConfig
from swarm.terms import Address, Infohash
from swarm.torrent import TorrentConfig, TorrentSession, with_settings

NETWORKS = ("loopback", "lan", "wan")


def network_name(name: str | None) -> str:
    """The network that is meant: None takes the environment's SWARM_NETWORK, else wan."""
    return name or os.environ.get("SWARM_NETWORK") or "wan"


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """One participant's settings in each room that talks.

    loopback: nothing leaves the machine. lan: local discovery, no Mainline DHT. wan: the Mainline DHT and port mapping.
    """

    name: str
    torrent: TorrentConfig
    rpc: RpcConfig
    discovery: DiscoveryConfig

    @classmethod
    def named(cls, name: str | None, bootstrap: Sequence[Address] = (), torrent_port: int = 0) -> NetworkConfig:
        """name: one of NETWORKS; None takes the environment's SWARM_NETWORK, else wan.

        bootstrap: DHT nodes to begin with, instead of the network's own (the Mainline's well-known ones on wan).
        """
        name = network_name(name)
        if name not in NETWORKS:
            raise BadArgument(f"network {name!r} is unknown; choose one of {', '.join(NETWORKS)}")
        host = "127.0.0.1" if name == "loopback" else "0.0.0.0"
        preset = {"loopback": TorrentConfig.loopback, "lan": TorrentConfig.lan, "wan": TorrentConfig.wan}[name]
        torrent = preset(listen=Address(host, torrent_port))
        if bootstrap:
            torrent = replace(torrent, dht_bootstrap=tuple(bootstrap))
        rpc = {"loopback": RpcConfig.loopback, "lan": RpcConfig.lan, "wan": RpcConfig.wan}[name]()
        return cls(name, torrent, rpc, DiscoveryConfig.for_network(name))

    def asking(self, peers: Sequence[Address]) -> NetworkConfig:
        """The same with DHT nodes more to begin with: peers of a link listen for the DHT on their BitTorrent port."""
        asked = tuple(dict.fromkeys((*self.torrent.dht_bootstrap, *peers)))
        return replace(self, torrent=replace(self.torrent, dht_bootstrap=asked))

    def with_torrent_settings(self, settings: Sequence[str]) -> NetworkConfig:
        """The same with BitTorrent settings, NAME=VALUE each. Raises: BadArgument."""
        return replace(self, torrent=with_settings(self.torrent, settings))

    def with_rates(self, upload_rate: int, download_rate: int) -> NetworkConfig:
        """The same with BitTorrent payload limits, bytes/s; 0: unbounded."""
        return replace(self, torrent=replace(self.torrent, upload_rate=upload_rate, download_rate=download_rate))

    def rendezvous(self, torrents: TorrentSession, listen: Address | None = None) -> tuple[Rendezvous, ...]:
        """Where nodes and those who look for them meet on this network. listen: multicast is kept to its interface."""
        places: list[Rendezvous] = [DhtRendezvous(torrents)] if self.torrent.dht else []
        if self.name == "lan":
            is_bound = listen is not None and not listen.is_unspecified
            places.append(LanRendezvous([listen.host] if listen is not None and is_bound else own_hosts()))
        return tuple(places)


@dataclass(frozen=True, slots=True)
class RpcFactsPort:
    """Discovery's door to gRPC."""

    dialer: Dialer

    async def exchange(
        self, address: Address, release: Infohash, facts: Sequence[SignedFact], known: Known, timeout_s: float
    ) -> Answer:
        connection = await self.dialer.connect(address)
        return await connection.exchange(release, facts, timeout_s, known)


@dataclass(frozen=True, slots=True)
class DhtRendezvous:
    """Discovery's door to the DHT."""

    torrents: TorrentSession
    name: str = "DHT"

    async def announce(self, key: bytes, port: int) -> bool:
        return await self.torrents.dht_announce(key, port)

    async def look_up(self, key: bytes, timeout_s: float) -> set[Address]:
        return await self.torrents.dht_look_up(key, timeout_s)

    async def close(self) -> None:
        """The session is not this one's to close."""
