"""What serves calls once they are authenticated, bounded and decoded: one protocol for each service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from swarm.facts import Known, SignedFact
from swarm.messages import ExpertAnswer, ExpertCall, ExpertOpen, ExpertRefusal, Failure, Open, Opened, Result, Step
from swarm.terms import Address, Infohash, NodeId, SessionId


class StageHandler(Protocol):
    """Both are cancelled when the caller cancels, disconnects or passes its deadline: clean up in `finally`."""

    def run(self, opening: Open, steps: AsyncIterator[Step], caller: NodeId, /) -> AsyncIterator[Opened | Failure]:
        """Serve one session until `steps` ends, which is when its caller leaves it. `steps` raises NodeUnreachable when
        the caller is gone without leaving, and RemoteProtocolError for a frame that is no Step.
        """
        ...

    def results(self, session_id: SessionId, epoch: int, caller: NodeId, /) -> AsyncIterator[Result]: ...


class ExpertsHandler(Protocol):
    """Cancelled when the caller cancels or disconnects: clean up in `finally`."""

    def apply(
        self, opening: ExpertOpen, calls: AsyncIterator[ExpertCall], caller: NodeId, /
    ) -> AsyncIterator[ExpertAnswer | ExpertRefusal]:
        """Answer each call, in any order, until `calls` ends. `calls` raises RemoteProtocolError for other frames."""
        ...


class NodeHandler(Protocol):
    """Signatures of the facts handed over are not checked yet."""

    async def describe(self, caller: NodeId, /) -> SignedFact: ...

    async def exchange(
        self, release: Infohash, facts: Sequence[SignedFact], known: Known, caller: NodeId, host: str, /
    ) -> tuple[Sequence[SignedFact], bool]:
        """(what is known here beyond `known`, whether there is more for who asks again)

        host: where the call comes from; '' for this very machine.
        """
        ...

    async def dial_back(self, address: Address, caller: NodeId, /) -> str:
        """Dial the caller at the host that it calls from; why that failed, or ''."""
        ...


class RelayHandler(Protocol):
    """All three are cancelled when the caller cancels or disconnects. host: where the call comes from; '' for this very
    machine.
    """

    def reserve(self, caller: NodeId, host: str, /) -> AsyncIterator[bytes]:
        """Keep a place for the caller: first b"", then the tunnels that it is to accept."""
        ...

    def connect(self, target: NodeId, data: AsyncIterator[bytes], caller: NodeId, host: str, /) -> AsyncIterator[bytes]:
        """Join the caller to the node of that id: what it sends -> what the node answers."""
        ...

    def accept(self, tunnel: bytes, data: AsyncIterator[bytes], caller: NodeId, /) -> AsyncIterator[bytes]: ...
