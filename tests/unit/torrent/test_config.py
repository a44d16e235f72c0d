from __future__ import annotations

import pytest

from swarm.errors import BadArgument
from swarm.terms import Address
from swarm.torrent import PUBLIC_DHT, TorrentConfig
from swarm.torrent.config import session_settings


def test_loopback_names_nobody_outside_of_the_machine() -> None:
    config = TorrentConfig.loopback(dht_bootstrap=PUBLIC_DHT)
    settings = session_settings(config, Address("127.0.0.1", 7000), 0)
    assert config.loopback_only
    assert settings["listen_interfaces"] == "127.0.0.1:7000"
    assert settings["outgoing_interfaces"] == "127.0.0.1"
    assert settings["dht_bootstrap_nodes"] == ""
    assert settings["webtorrent_stun_server"] == ""
    assert not any(settings[f"enable_{name}"] for name in ("lsd", "upnp", "natpmp", "ip_notifier"))


def test_wan_keeps_the_public_dht_strict_and_asks_the_router() -> None:
    settings = session_settings(TorrentConfig.wan(), Address("0.0.0.0", 7000), 0)
    assert "dht_restrict_routing_ips" not in settings
    assert settings["outgoing_interfaces"] == ""
    assert "dht.libtorrent.org:25401" in settings["dht_bootstrap_nodes"]
    assert settings["enable_upnp"]
    assert settings["recv_socket_buffer_size"] == 4 << 20


def test_lan_asks_nobody_outside() -> None:
    config = TorrentConfig.lan()
    assert config.lsd
    assert not config.dht_bootstrap
    assert not config.upnp
    assert not config.loopback_only


@pytest.mark.parametrize("preset", [TorrentConfig.loopback, TorrentConfig.lan, TorrentConfig.wan])
def test_overrides_are_checked(preset: object) -> None:
    assert callable(preset)
    assert preset(upload_rate=5).upload_rate == 5
    with pytest.raises(BadArgument, match="upload_rate"):
        preset(upload_rat=5)
    with pytest.raises(BadArgument, match="rate limit"):
        preset(download_rate=-1)
    with pytest.raises(BadArgument, match="max_connections"):
        preset(max_connections=1)


@pytest.mark.parametrize("setting", ["lsd", "upnp", "natpmp"])
def test_loopback_refuses_what_leaves_the_machine(setting: str) -> None:
    with pytest.raises(BadArgument, match="leave the machine"):
        TorrentConfig.loopback(**{setting: True})
