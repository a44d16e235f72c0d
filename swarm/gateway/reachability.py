"""Whether nodes' ports answer this machine, and how fast. Sends nothing: who listens there is discovery's business."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from swarm.terms import Address

ASK_AGAIN_S = 10.0
"""How long an answer holds. Lower notices a closed port sooner, at one TCP handshake per node."""

MAX_ASKED_AT_ONCE = 16
"""Addresses are hearsay: a forged list must not make this machine knock on many doors at once."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What came of one knock. connect_s: one round trip and a bit; None when nobody answered."""

    connect_s: float | None
    at_s: float


class Reachability:
    """The newest knock at each address. clock: monotonic seconds."""

    def __init__(self, timeout_s: float = 3.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._known: dict[Address, Reach] = {}

    def at(self, address: Address) -> Reach | None:
        """None while it was never asked."""
        return self._known.get(address)

    async def refresh(self, addresses: Iterable[Address]) -> None:
        """Knock where the last answer is too old, the oldest first; forget the addresses that are not named."""
        now_s = self._clock()
        wanted = list(dict.fromkeys(addresses))
        self._known = {address: self._known[address] for address in wanted if address in self._known}
        due = [a for a in wanted if a not in self._known or now_s - self._known[a].at_s >= ASK_AGAIN_S]
        due.sort(key=lambda a: self._known[a].at_s if a in self._known else float("-inf"))
        await asyncio.gather(*(self._knock(address) for address in due[:MAX_ASKED_AT_ONCE]))

    async def _knock(self, address: Address) -> None:
        started_s = self._clock()
        connect_s: float | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                _, writer = await asyncio.open_connection(address.host, address.port)
            connect_s = self._clock() - started_s
            writer.transport.abort()
        except (OSError, UnicodeError, TimeoutError):
            pass  # not reachable is an answer
        self._known[address] = Reach(connect_s, self._clock())
