"""The two doors that discovery needs to the outside; the composition roots fit the DHT and gRPC into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from swarm.facts import Answer, Known, SignedFact
from swarm.terms import Address, Infohash


class Rendezvous(Protocol):
    """A place where nodes leave their addresses under a 20-byte key. What it returns is hearsay until a node answers
    there.
    """

    @property
    def name(self) -> str: ...

    async def announce(self, key: bytes, port: int) -> bool:
        """False when nobody was there to take it."""
        ...

    async def look_up(self, key: bytes, timeout_s: float) -> set[Address]: ...

    async def close(self) -> None: ...


class FactsPort(Protocol):
    """Asks one node for the facts that it knows."""

    async def exchange(
        self, address: Address, release: Infohash, facts: Sequence[SignedFact], known: Known, timeout_s: float
    ) -> Answer:
        """Push facts to the node at address and pull what it knows beyond `known`. Its facts come unchecked, its id is
        the one that it proved.

        Raises: RpcError.
        """
        ...
