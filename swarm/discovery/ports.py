"""The two doors that discovery needs to the outside; the composition roots fit the DHT and gRPC into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from swarm.facts import SignedFact
from swarm.terms import Address, Infohash, NodeId


class Rendezvous(Protocol):
    """A place where nodes leave their addresses under a 20-byte key. What it returns is hearsay until a node answers
    there.
    """

    async def dht_announce(self, key: bytes, port: int) -> bool:
        """False when nobody was there to take it."""
        ...

    async def dht_look_up(self, key: bytes, timeout_s: float) -> set[Address]: ...


class FactsPort(Protocol):
    """Asks one node for the facts that it knows."""

    async def exchange(
        self, address: Address, release: Infohash, facts: Sequence[SignedFact], timeout_s: float
    ) -> tuple[NodeId, Sequence[SignedFact]]:
        """Push facts to the node at address and pull what it knows: (the id that it proved, its facts, unchecked).

        Raises: RpcError.
        """
        ...
