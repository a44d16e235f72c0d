"""Answers what this node is, and trades facts with other nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from swarm.discovery import Discovery
from swarm.errors import RemoteProtocolError
from swarm.facts import SignedFact
from swarm.terms import Infohash, NodeId


class FactsHandler:
    """The Node service. own: this node's newest fact, signed."""

    def __init__(self, discovery: Discovery, own: Callable[[], SignedFact | None]) -> None:
        self._discovery = discovery
        self._own = own

    async def describe(self, caller: NodeId) -> SignedFact:
        own = self._own()
        if own is None:
            raise RemoteProtocolError("this node has not read its release's config yet; ask again in a moment")
        return own

    async def exchange(self, release: Infohash, facts: Sequence[SignedFact], caller: NodeId) -> Sequence[SignedFact]:
        if release != self._discovery.release:
            raise RemoteProtocolError(f"this node serves release {self._discovery.release}, not {release}")
        return self._discovery.receive(facts)
