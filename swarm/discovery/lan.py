"""The local network as a meeting place: nodes name their port by multicast DNS (RFC 6762, 6763), and hear each other.

What is heard is hearsay, as from a DHT: whoever is dialled there proves its id. It may name addresses of the local
networks only.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from swarm.terms import Address

if TYPE_CHECKING:
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

log = logging.getLogger("swarm.discovery")

SERVICE = "_mistral-swarm._tcp.local."
KEY = "key"
"""The TXT record's entry: the rendezvous key in hex, since a network may have nodes of several releases."""

MAX_HEARD = 256
MAX_HOSTS = 8
"""Addresses of one participant."""
RESOLVE_TIMEOUT_MS = 1500
SETTLE_S = 0.3
"""How long after the first answer a look-up goes on collecting."""


class LanRendezvous:
    """One participant's ear and voice on the local network; opened by its first use, and to be closed.

    hosts: IPv4 addresses of the interfaces to use and to be dialled at.
    """

    name = "LAN"

    def __init__(self, hosts: Sequence[str]) -> None:
        self.hosts = tuple(hosts)
        self._networks = _networks_of(self.hosts)
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._announced: Any = None
        self._heard: dict[str, tuple[str, set[Address]]] = {}  # service name -> (key in hex, addresses)
        self._resolving: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._opening = asyncio.Lock()

    async def announce(self, key: bytes, port: int) -> bool:
        """Name this participant's port from now on. False where the network takes no multicast."""
        from zeroconf import Error
        from zeroconf.asyncio import AsyncServiceInfo

        zeroconf = await self._opened()
        if zeroconf is None:
            return False
        name = f"{os.urandom(6).hex()}.{SERVICE}" if self._announced is None else self._announced.name
        addresses = [socket.inet_aton(host) for host in self.hosts]
        info = AsyncServiceInfo(SERVICE, name, port=port, properties={KEY: key.hex()}, addresses=addresses)
        try:
            if self._announced is None:
                await (await zeroconf.async_register_service(info))
            else:
                await (await zeroconf.async_update_service(info))
        except (Error, OSError) as error:
            log.info("cannot be named on the local network: %s", error)
            return False
        self._announced = info
        return True

    async def look_up(self, key: bytes, timeout_s: float) -> set[Address]:
        """Who named this key; the empty set when nobody was heard within timeout_s."""
        if await self._opened() is None:
            return set()
        deadline_s = time.monotonic() + timeout_s
        found: set[Address] = set()
        while (left_s := deadline_s - time.monotonic()) > 0:
            heard = self._others_of(key.hex())
            if heard and not found:
                deadline_s = min(deadline_s, time.monotonic() + SETTLE_S)
            found = heard
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, SETTLE_S)):
                    await self._news.wait()
        return found

    async def close(self) -> None:
        """Take the name back, and leave the group."""
        for task in tuple(self._resolving):
            task.cancel()
        await asyncio.gather(*self._resolving, return_exceptions=True)
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._zeroconf is not None:
            await self._zeroconf.async_unregister_all_services()
            await self._zeroconf.async_close()
        self._browser = self._zeroconf = None

    async def _opened(self) -> AsyncZeroconf | None:
        from zeroconf import IPVersion
        from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

        async with self._opening:
            if self._zeroconf is None:
                try:
                    self._zeroconf = AsyncZeroconf(interfaces=list(self.hosts), ip_version=IPVersion.V4Only)
                except OSError as error:
                    log.info("no multicast on %s: %s", ", ".join(self.hosts), error)
                    return None
                self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE, handlers=[self._on_change])
            return self._zeroconf

    def _on_change(self, zeroconf: Any, service_type: str, name: str, state_change: Any) -> None:
        from zeroconf import ServiceStateChange

        if state_change is ServiceStateChange.Removed:
            self._heard.pop(name, None)
        elif len(self._resolving) < MAX_HEARD:
            task = asyncio.create_task(self._resolve(zeroconf, name))
            self._resolving.add(task)
            task.add_done_callback(self._resolving.discard)

    async def _resolve(self, zeroconf: Any, name: str) -> None:
        from zeroconf import Error
        from zeroconf.asyncio import AsyncServiceInfo

        info = AsyncServiceInfo(SERVICE, name)
        try:
            if not await info.async_request(zeroconf, RESOLVE_TIMEOUT_MS):
                return
        except (Error, OSError):
            return
        if info.port:
            key = info.decoded_properties.get(KEY) or ""
            self._hear(name, key, [Address(host, info.port) for host in info.parsed_addresses()])

    def _hear(self, name: str, key: str, addresses: Sequence[Address]) -> None:
        """Remember what was said last, in the place of what was said first."""
        near = [at for at in addresses if any(ipaddress.ip_address(at.host) in network for network in self._networks)]
        self._heard.pop(name, None)
        if near:
            self._heard[name] = (key, set(near[:MAX_HOSTS]))
            while len(self._heard) > MAX_HEARD:
                del self._heard[next(iter(self._heard))]
            self._news.set()

    def _others_of(self, key: str) -> set[Address]:
        own = None if self._announced is None else self._announced.name
        return set[Address]().union(*(at for name, (of, at) in self._heard.items() if of == key and name != own))


def _networks_of(hosts: Sequence[str]) -> list[ipaddress.IPv4Network]:
    """Those that the interfaces with these IPv4 addresses are in."""
    import ifaddr

    own = [ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4 and ip.ip in hosts]
    return [ipaddress.IPv4Network(f"{ip.ip}/{ip.network_prefix}", strict=False) for ip in own]
