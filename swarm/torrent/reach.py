"""Whom a session may reach, and under which endpoint: ports, names, and the fence around a loopback session."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

import libtorrent as lt

from swarm.errors import ListenError
from swarm.terms import Address
from swarm.torrent.attempts import Attempts
from swarm.torrent.config import TorrentConfig
from swarm.torrent.magnet import Magnet

LEFT_OUT = "left out: this session stays on this machine"

_LAST_V6 = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"


def is_loopback_host(host: str) -> bool:
    """The host is this machine's loopback, by literal or by the name localhost; no name is looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allows_url(config: TorrentConfig, url: str) -> bool:
    return not config.loopback_only or is_loopback_host(urlsplit(url).hostname or "")


def allows_address(config: TorrentConfig, address: Address) -> bool:
    return not config.loopback_only or is_loopback_host(address.host)


def note_sources(config: TorrentConfig, magnet: Magnet, attempts: Attempts) -> None:
    """Say of each tracker and web seed of the link whether it is to be asked."""
    for url in magnet.trackers:
        attempts.tracker(url, "not asked yet" if allows_url(config, url) else LEFT_OUT)
    for url in magnet.web_seeds:
        attempts.web_seed(url, "no complaint so far" if allows_url(config, url) else LEFT_OUT)


async def resolve(config: TorrentConfig, address: Address) -> tuple[list[tuple[str, int]], str | None]:
    """IP endpoints of an address, or why there is none."""
    if not allows_address(config, address):
        return [], LEFT_OUT
    try:
        return [(str(ipaddress.ip_address(address.host)), address.port)], None
    except ValueError:
        pass  # a name
    try:
        found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return [], f"the name does not resolve: {error}"
    return [(str(endpoint[0]), int(endpoint[1])) for *_, endpoint in found], None


def fence(session: Any, config: TorrentConfig) -> None:
    """Keep a loopback session on the machine, and make rate limits hold for local peers too."""
    if config.loopback_only:
        addresses = lt.ip_filter()
        addresses.add_rule("0.0.0.0", "126.255.255.255", 1)
        addresses.add_rule("128.0.0.0", "255.255.255.255", 1)
        addresses.add_rule("::2", _LAST_V6, 1)
        session.set_ip_filter(addresses)
    if config.upload_rate or config.download_rate or config.schedule:
        classes = lt.ip_filter()
        classes.add_rule("0.0.0.0", "255.255.255.255", 1 << lt.session.global_peer_class_id)
        classes.add_rule("::", _LAST_V6, 1 << lt.session.global_peer_class_id)
        session.set_peer_class_filter(classes)


def fix_port(listen: Address) -> Address:
    """The address with a port that libtorrent will use on every interface: for 0.0.0.0:0 it would draw one for each."""
    if listen.port != 0 or not listen.is_unspecified:
        return listen
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    for _ in range(20):
        with socket.socket(family, socket.SOCK_STREAM) as tcp, socket.socket(family, socket.SOCK_DGRAM) as udp:
            tcp.bind((listen.host, 0))
            port = int(tcp.getsockname()[1])
            try:
                udp.bind((listen.host, port))
            except OSError:
                continue
            return Address(listen.host, port)
    raise ListenError(f"no port on {listen.host} is free for both TCP and UDP; name one")
