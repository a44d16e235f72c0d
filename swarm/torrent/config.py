"""How a torrent session behaves, and the libtorrent settings that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

from swarm.errors import BadArgument
from swarm.terms import Address
from swarm.torrent.rates import RateWindow

PUBLIC_DHT = (
    Address("dht.libtorrent.org", 25401),
    Address("router.bittorrent.com", 6881),
    Address("dht.transmissionbt.com", 6881),
)
"""Well-known first contacts of the public DHT, used by wan() only."""


_ENCRYPTION = {"allowed": 1, "required": 0, "off": 2}
"""libtorrent's enc_policy."""

ENCRYPTIONS = tuple(_ENCRYPTION)

_PROXY_TYPES = {("socks5", False): 2, ("socks5", True): 3, ("http", False): 4, ("http", True): 5}
"""libtorrent's proxy_type_t, by scheme and whether there is a password."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """Through which peers, trackers and web seeds are reached. kind: 'socks5' or 'http'."""

    kind: str
    address: Address
    user: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """`socks5://[USER:PASSWORD@]HOST:PORT`, or http://…. Raises: BadArgument."""
        scheme, _, rest = text.partition("://")
        login, _, address = rest.rpartition("@")
        user, _, password = login.partition(":")
        if scheme not in ("socks5", "http"):
            raise BadArgument("a proxy is written socks5://[USER:PASSWORD@]HOST:PORT, or http://…")
        return cls(scheme, Address.parse(address), unquote(user), unquote(password))


@dataclass(frozen=True, slots=True)
class TorrentConfig:
    """Where a session listens and whom it may talk to. Build it with loopback(), lan() or wan().

    listen: host and port for TCP and UDP (BitTorrent and DHT); port 0 takes any free one. On a loopback host nothing
        leaves the machine: trackers, peers, web seeds and DHT nodes elsewhere are left out, and said to be.
    dht, dht_bootstrap: run the DHT, and whom to ask first.   lsd: find peers on the local network by multicast.
    upnp, natpmp: ask the router to forward the port.
    upload_rate, download_rate: bytes per second, 0 for no limit; they hold for local peers too.
    same_host_dht: several DHT nodes on one host or /24 count as different. Off on the public DHT, where it would make a
        flood of fake nodes cheap.
    upload_slots: how many peers are given data at once; 0: two to eight, by the upload rate, eight without a limit.
        Behind a narrow uplink few slots hand out whole pieces sooner, which the others then pass on.
    schedule: other rate limits at some times of the day.
    pex: tell connected peers of each other.   encryption: 'allowed', 'required' or 'off'. Required leaves out peers
        that cannot; it hides what is transferred from onlookers, not from peers.
    proxy: of peers, trackers and web seeds; nobody can dial us then.
    utp: also speak uTP, which passes NATs that TCP does not; 40 % slower than TCP on a fast network.
    settle_s: how long after a first DHT answer to collect more. Longer finds more nodes and delays each look-up.
    web_seed_patience_s: without progress for so long, HTTP copies are taken up anew. Shorter mends expired addresses
        sooner and may not await a server's Retry-After.
    max_connections: of all torrents together; each costs a socket and about 100 KB.
    """

    listen: Address
    dht: bool = True
    dht_bootstrap: tuple[Address, ...] = ()
    lsd: bool = False
    upnp: bool = False
    natpmp: bool = False
    upload_rate: int = 0
    download_rate: int = 0
    upload_slots: int = 0
    schedule: tuple[RateWindow, ...] = ()
    pex: bool = True
    encryption: str = "allowed"
    proxy: Proxy | None = None
    same_host_dht: bool = False
    utp: bool = False
    settle_s: float = 0.5
    max_connections: int = 200
    web_seed_patience_s: float = 8.0

    def __post_init__(self) -> None:
        if self.upload_rate < 0 or self.download_rate < 0:
            raise BadArgument("a rate limit is a number of bytes per second, or 0 for none; it cannot be negative")
        if self.upload_slots < 0:
            raise BadArgument("upload_slots cannot be negative; 0 chooses by the upload rate")
        if self.max_connections < 2:
            raise BadArgument("max_connections below 2 leaves no room for a peer and a newcomer; raise it")
        if not 0 <= self.settle_s <= 60:
            raise BadArgument("settle_s is a number of seconds between 0 and 60")
        if self.encryption not in _ENCRYPTION:
            raise BadArgument(f"encryption is one of {', '.join(_ENCRYPTION)}, not {self.encryption!r}")
        if self.listen.is_loopback and self.proxy is not None:
            raise BadArgument("a loopback session never leaves this machine and needs no proxy; leave it out")
        if self.listen.is_loopback and (self.lsd or self.upnp or self.natpmp):
            raise BadArgument(
                "lsd, upnp and natpmp leave the machine; listen on another address than loopback to use them"
            )

    @property
    def loopback_only(self) -> bool:
        return self.listen.is_loopback

    @classmethod
    def loopback(cls, **overrides: Any) -> TorrentConfig:
        """One machine: nothing leaves it, and nobody is asked but whom the caller names."""
        return _override(cls(Address("127.0.0.1", 0), same_host_dht=True, settle_s=0.1), overrides)

    @classmethod
    def lan(cls, **overrides: Any) -> TorrentConfig:
        """One network of one's own: multicast discovery, a DHT among the members, no contact outside."""
        return _override(cls(Address("0.0.0.0", 0), lsd=True, same_host_dht=True, settle_s=0.3), overrides)

    @classmethod
    def wan(cls, **overrides: Any) -> TorrentConfig:
        """The internet: the public DHT, port forwarding, and uTP for peers behind NATs."""
        preset = cls(
            Address("0.0.0.0", 0),
            dht_bootstrap=PUBLIC_DHT,
            lsd=True,
            upnp=True,
            natpmp=True,
            utp=True,
            settle_s=2.0,
        )
        return _override(preset, overrides)


def _override(preset: TorrentConfig, overrides: dict[str, Any]) -> TorrentConfig:
    try:
        return replace(preset, **overrides)
    except TypeError as error:
        known = ", ".join(TorrentConfig.__slots__)
        raise BadArgument(f"{error}; a torrent session knows these settings: {known}") from error


def _upload_slots(upload_rate: int) -> int:
    """One for each 10 MB/s, two to eight. Measured with a seed of 20 MB/s and eight nodes that want 100 MB: with eight
    slots it gave 2.2 copies in 12.5 s, with two 1.07 copies in 6.6 s; one node alone took 6.2 s.
    """
    return min(8, max(2, upload_rate // 10_000_000)) if upload_rate else 8


def session_settings(config: TorrentConfig, listen: Address, alert_mask: int) -> dict[str, Any]:
    """libtorrent's settings pack for this configuration, listening on `listen` (its port is never 0)."""
    settings: dict[str, Any] = {
        "listen_interfaces": str(listen),
        # The next free port or a random one would be a silent surprise: a taken port is an error.
        "max_retry_port_bind": 0,
        "listen_system_port_fallback": False,
        "outgoing_interfaces": "" if listen.is_unspecified else listen.host,
        "enable_dht": config.dht,
        "dht_bootstrap_nodes": ",".join(map(str, config.dht_bootstrap)) if not config.loopback_only else "",
        "enable_lsd": config.lsd,
        "enable_upnp": config.upnp,
        "enable_natpmp": config.natpmp,
        "enable_ip_notifier": not config.loopback_only,
        "webtorrent_stun_server": "",
        "upload_rate_limit": config.upload_rate,
        "download_rate_limit": config.download_rate,
        "out_enc_policy": _ENCRYPTION[config.encryption],
        "in_enc_policy": _ENCRYPTION[config.encryption],
        "enable_outgoing_utp": config.utp,
        "enable_incoming_utp": config.utp,
        # uTP falls from 300 to 12 MB/s with the kernel's default socket buffers.
        "recv_socket_buffer_size": 4 << 20 if config.utp else 0,
        "send_socket_buffer_size": 4 << 20 if config.utp else 0,
        "connections_limit": config.max_connections,
        "unchoke_slots_limit": config.upload_slots or _upload_slots(config.upload_rate),
        # Whatever is asked of one peer ahead of time, others ask it for again: a second's worth hides any round trip.
        "request_queue_time": 1,
        "allow_multiple_connections_per_ip": True,
        # Two partial peers look redundant to each other until they want something: never hang up on them.
        "close_redundant_connections": False,
        # By default the first four pieces are picked at random, whatever their priorities.
        "initial_picker_threshold": 0,
        "announce_to_all_trackers": True,
        "announce_to_all_tiers": True,
        "max_metadata_size": 32 << 20,
        "max_web_seed_connections": 20,
        "urlseed_wait_retry": 2,
        "min_reconnect_time": 1,
        "tick_interval": 100,
        "stop_tracker_timeout": 1,
        "active_downloads": -1,
        "active_seeds": -1,
        "active_limit": -1,
        "alert_queue_size": 100_000,
        "alert_mask": alert_mask,
    }
    if config.same_host_dht:
        settings |= {
            "dht_restrict_routing_ips": False,
            "dht_restrict_search_ips": False,
            "dht_block_ratelimit": 100_000,
            "dht_upload_rate_limit": 10_000_000,
        }
    if config.proxy is not None:
        settings |= {
            "proxy_type": _PROXY_TYPES[config.proxy.kind, bool(config.proxy.user)],
            "proxy_hostname": config.proxy.address.host,
            "proxy_port": config.proxy.address.port,
            "proxy_username": config.proxy.user,
            "proxy_password": config.proxy.password,
        }
    return settings
