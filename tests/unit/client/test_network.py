"""What each network means for each room."""

from __future__ import annotations

import pytest

from swarm.client.network import NetworkConfig
from swarm.client.reach import own_hosts
from swarm.discovery import LanRendezvous
from swarm.errors import BadArgument
from swarm.terms import Address
from swarm.torrent import TorrentSession
from swarm.torrent.config import PUBLIC_DHT


def test_wan_begins_at_the_mainline_and_a_bootstrap_replaces_it() -> None:
    assert NetworkConfig.named("wan").torrent.dht_bootstrap == PUBLIC_DHT
    mine = Address("198.51.100.1", 6881)
    assert NetworkConfig.named("wan", [mine]).torrent.dht_bootstrap == (mine,)


def test_loopback_listens_and_looks_nowhere_else() -> None:
    torrent = NetworkConfig.named("loopback").torrent
    assert torrent.listen.is_loopback
    assert torrent.dht_bootstrap == ()
    assert not (torrent.lsd or torrent.upnp or torrent.natpmp)


def test_the_environment_names_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_NETWORK", "lan")
    assert NetworkConfig.named(None).name == "lan"
    monkeypatch.delenv("SWARM_NETWORK")
    assert NetworkConfig.named(None).name == "wan"
    with pytest.raises(BadArgument, match="loopback, lan, wan"):
        NetworkConfig.named("moon")


@pytest.mark.parametrize(("network", "hosts"), [("loopback", []), ("lan", [("192.0.2.9",)]), ("wan", [])])
def test_multicast_is_for_local_networks_and_kept_to_the_interface_that_is_listened_on(
    network: str, hosts: list[tuple[str, ...]]
) -> None:
    config = NetworkConfig.named(network)
    torrents = TorrentSession(config.torrent)
    made = config.rendezvous(torrents, Address("192.0.2.9", 7000))
    assert [place.name for place in made] == ["DHT", *("LAN" for _ in hosts)]
    assert [place.hosts for place in made if isinstance(place, LanRendezvous)] == hosts
    everywhere = [place for place in config.rendezvous(torrents) if isinstance(place, LanRendezvous)]
    assert [place.hosts for place in everywhere] == [tuple(own_hosts()) for _ in hosts]
