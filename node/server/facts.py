"""Answers what this node is, and trades facts with other nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from node.server.allowance import Allowance
from node.server.dial_back import DialBack
from swarm.discovery import Discovery
from swarm.errors import RemoteProtocolError, StageFull
from swarm.facts import Known, SignedFact
from swarm.terms import Address, Infohash, NodeId

EXCHANGES = 64
EXCHANGE_REFILL_S = 0.05
"""One node exchanges EXCHANGES times, twice what the largest table takes, and then once in EXCHANGE_REFILL_S: each
costs milliseconds where 10,000 nodes are known.
"""

HOST_SHARE = 4
"""All of one host, whatever ids they made up, exchange so many times as often: several may live behind one router."""

MAX_CALLERS = 1024


class FactsHandler:
    """The Node service. own: this node's newest fact, signed."""

    def __init__(self, discovery: Discovery, own: Callable[[], SignedFact | None], dial_back: DialBack) -> None:
        self._discovery = discovery
        self._own = own
        self._dial_back = dial_back
        self._allowance = Allowance(EXCHANGES, EXCHANGE_REFILL_S, MAX_CALLERS)
        self._of_hosts = Allowance(HOST_SHARE * EXCHANGES, EXCHANGE_REFILL_S / HOST_SHARE, MAX_CALLERS)

    async def describe(self, caller: NodeId) -> SignedFact:
        own = self._own()
        if own is None:
            raise RemoteProtocolError("this node has not read its release's config yet; ask again in a moment")
        return own

    async def exchange(
        self, release: Infohash, facts: Sequence[SignedFact], known: Known, caller: NodeId, host: str
    ) -> tuple[Sequence[SignedFact], bool]:
        if release != self._discovery.release:
            raise RemoteProtocolError(f"this node serves release {self._discovery.release}, not {release}")
        if not self._allowance.spend(caller) or (host and not self._of_hosts.spend(host)):
            raise StageFull("you exchanged facts here often enough; ask another", retry_after_s=EXCHANGE_REFILL_S)
        return await self._discovery.receive(facts, known)

    async def dial_back(self, address: Address, caller: NodeId) -> str:
        return await self._dial_back.dial(address, caller)
