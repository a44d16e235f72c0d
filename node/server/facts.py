"""Answers what this node is, and trades facts with other nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from node.server.dial_back import DialBack
from swarm.discovery import Discovery
from swarm.errors import RemoteProtocolError
from swarm.facts import Known, SignedFact
from swarm.terms import Address, Infohash, NodeId


class FactsHandler:
    """The Node service. own: this node's newest fact, signed."""

    def __init__(self, discovery: Discovery, own: Callable[[], SignedFact | None], dial_back: DialBack) -> None:
        self._discovery = discovery
        self._own = own
        self._dial_back = dial_back

    async def describe(self, caller: NodeId) -> SignedFact:
        own = self._own()
        if own is None:
            raise RemoteProtocolError("this node has not read its release's config yet; ask again in a moment")
        return own

    async def exchange(
        self, release: Infohash, facts: Sequence[SignedFact], known: Known, caller: NodeId
    ) -> tuple[Sequence[SignedFact], bool]:
        if release != self._discovery.release:
            raise RemoteProtocolError(f"this node serves release {self._discovery.release}, not {release}")
        return await self._discovery.receive(facts, known)

    async def dial_back(self, address: Address, caller: NodeId) -> str:
        return await self._dial_back.dial(address, caller)
