"""Ports that the router forwards to this machine, by UPnP or NAT-PMP, whichever it understands."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Any

import libtorrent as lt

from swarm.terms import Address


@dataclass(frozen=True, slots=True)
class Mapped:
    """address: where the router takes connections for this machine, None while its outward host is not known.
    by: 'UPnP', 'NAT-PMP', or '' while no router has agreed; problem: what they said instead.
    """

    address: Address | None = None
    by: str = ""
    problem: str = "no router has answered so far"


class PortMapping:
    """One TCP port, forwarded for as long as the libtorrent session lives. It renews it by itself."""

    def __init__(self, session: Any, port: int) -> None:
        self.port = port
        self._handles = set(session.add_port_mapping(lt.portmap_protocol.tcp, port, port))
        self._external: tuple[int, str] | None = None
        self.outward_host = ""  # as the router, or whoever answered, told it
        self._problem = "no router has answered so far" if self._handles else "port mapping is off on this network"
        self._news = asyncio.Event()

    @property
    def now(self) -> Mapped:
        if self._external is None:
            return Mapped(problem=self._problem)
        port, by = self._external
        return Mapped(Address(self.outward_host, port) if self.outward_host else None, by, "")

    async def settle(self, timeout_s: float) -> Mapped:
        """What came of it, once a router agreed and told its outward host, or timeout_s later."""
        deadline_s = time.monotonic() + timeout_s
        while self._handles and self.now.address is None and (left_s := deadline_s - time.monotonic()) > 0:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._news.wait()
        return self.now

    def on_alert(self, alert: Any) -> None:
        if not isinstance(alert, lt.external_ip_alert) and alert.mapping not in self._handles:
            return
        if isinstance(alert, lt.portmap_alert):
            by = "UPnP" if alert.map_transport == lt.portmap_transport.upnp else "NAT-PMP"
            self._external = (int(alert.external_port), by)
        elif isinstance(alert, lt.portmap_error_alert):
            self._problem = f"the router refused: {alert.error.message()}"
        self._news.set()


class PortMappings:
    """All of one session's, by port. The outward host may be told before the first port is asked for."""

    def __init__(self) -> None:
        self._by_port: dict[int, PortMapping] = {}
        self._outward_host = ""

    def add(self, session: Any, port: int) -> PortMapping:
        if port not in self._by_port:
            mapping = self._by_port[port] = PortMapping(session, port)
            mapping.outward_host = self._outward_host
        return self._by_port[port]

    def on_alert(self, alert: Any) -> bool:
        """Whether the alert is about port mapping."""
        if not isinstance(alert, lt.portmap_alert | lt.portmap_error_alert | lt.external_ip_alert):
            return False
        if isinstance(alert, lt.external_ip_alert):
            self._outward_host = str(alert.external_address)
        for mapping in self._by_port.values():
            mapping.outward_host = self._outward_host
            mapping.on_alert(alert)
        return True

    def clear(self) -> None:
        self._by_port.clear()
