"""Dials a caller back at its word, so that it knows whether others reach it: nobody but the caller, and not often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from node.server.allowance import Allowance
from swarm.errors import RemoteProtocolError, StageFull, SwarmError
from swarm.facts import SignedFact
from swarm.rpc import Dialer
from swarm.terms import Address, NodeId

DIAL_TIMEOUT_S = 5.0

BURST = 3
REFILL_S = 10.0
"""One host is dialled BURST times, and then once in REFILL_S: an honest node asks once in minutes."""

MAX_HOSTS = 256
MAX_AT_ONCE = 4


class DialBack:
    """Serves the dial-back check. The host is the one that the call came from, whatever the caller says.

    own: this node's own fact: what comes through a relay, or from this very machine, names no host outside.
    """

    def __init__(self, dialer: Dialer, own: Callable[[], SignedFact | None]) -> None:
        self._dialer = dialer
        self._own = own
        self._allowance = Allowance(BURST, REFILL_S, MAX_HOSTS)
        self._n_running = 0

    async def dial(self, address: Address, caller: NodeId) -> str:
        """Why the caller did not prove its id there; '' when it did.

        Raises: RemoteProtocolError (not from here), StageFull (too often).
        """
        own = self._own()
        if own is None or own.fact.address.target or (address.is_loopback and not own.fact.address.is_loopback):
            raise RemoteProtocolError("this node does not know where the call comes from; ask one that is dialled")
        if not address.is_loopback and not self._allowance.spend(address.host):
            raise StageFull(f"{address.host} was dialled back often enough; ask another", retry_after_s=REFILL_S)
        if self._n_running >= MAX_AT_ONCE:
            raise StageFull("this node is dialling others back; ask another", retry_after_s=DIAL_TIMEOUT_S)
        self._n_running += 1
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                await self._dialer.connect(address, caller)
        except TimeoutError:
            return f"{address} did not answer within {DIAL_TIMEOUT_S:g} s"
        except SwarmError as error:
            return error.message
        finally:
            self._n_running -= 1
        return ""
