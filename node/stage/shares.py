"""Who may have how much while there is not enough for everybody: pure rules over plain numbers.

A client is whoever proves one node id. Somebody who makes up many of them gets as many shares: ids cost nothing, and
against that these rules do not help.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

RESERVED_PART = 4
"""One part in so many stays free for whoever comes next, beyond the equal shares of those who are here. More parts let
one client fill the node further while it is alone, and leave a newcomer less room."""

YIELDING_IDLE_S = 15.0
"""How long a session may stand still before its pages go to those who are short of them."""


def may_have(wanted: int, *, mine: int, used: int, limit: int, n_clients: int) -> bool:
    """Whether a client that has `mine` of the `used` may have `wanted` more, where all may have `limit` together.

    n_clients: those that have some or lately asked for some, this one included. Anybody may have the first that fits,
    and what is free up to an equal share (half of it all where nobody else is here). Beyond, a part must stay free.
    """
    left = limit - used - wanted
    if mine == 0 or (mine + wanted) * max(2, n_clients) <= limit:
        return left >= 0
    return left >= limit // RESERVED_PART


@dataclass(frozen=True, slots=True)
class Tenant:
    """One session as the rules see it.

    generation: sessions of one generation, on several hops of its route, stand and fall together. nth: smaller is
    older. idle_s: since anything was asked of it; 0 while something is.
    """

    client: Hashable
    generation: Hashable
    nth: int
    held_bytes: int
    idle_s: float = 0.0


def who_yields(tenants: Sequence[Tenant], idle_only: bool = False) -> Tenant | None:
    """Whose pages go when there are no more: of those that stand still, the one that does so longest; else the youngest
    of the client that holds most.

    The oldest generation never yields while it moves, so that one always gets to its end, and then the next.
    None: there is nobody else, or nobody idle where only those are asked for.
    """
    holding = [tenant for tenant in tenants if tenant.held_bytes]
    idle = [tenant for tenant in holding if tenant.idle_s >= YIELDING_IDLE_S]
    if idle:
        return max(idle, key=lambda tenant: tenant.idle_s)
    if idle_only or not tenants:
        return None
    oldest = min(tenants, key=lambda tenant: tenant.nth).generation
    held: dict[Hashable, int] = {}
    for tenant in tenants:
        held[tenant.client] = held.get(tenant.client, 0) + tenant.held_bytes
    younger = [tenant for tenant in holding if tenant.generation != oldest]
    return max(younger, key=lambda tenant: (held[tenant.client], tenant.nth), default=None)


class FairClock:
    """The virtual time of each client: the rows that were computed for it. Whoever has the least goes first.

    Start-time fair queueing: time stands where the least served client of the last batch stood. Nobody is further than
    credit_rows behind it or ahead of it: a client that asked for nothing for a while is not owed all of that, and one
    that had the node to itself does not pay for it for ever. More credit lets a newcomer's whole prompt go first. A
    batch of fewer than least_rows costs as much as one of those.
    """

    def __init__(self, credit_rows: float = 2048.0, least_rows: int = 16) -> None:
        self._credit_rows = credit_rows
        self._least_rows = least_rows
        self._times: dict[Hashable, float] = {}
        self._now = 0.0

    def time(self, client: Hashable) -> float:
        return max(self._times.get(client, -math.inf), self._now - self._credit_rows)

    def charge(self, rows: Mapping[Hashable, int]) -> None:
        """A batch has so many rows of each client."""
        before = {client: self.time(client) for client in rows}
        self._now = max(self._now, min(before.values(), default=self._now))
        weight = max(1.0, self._least_rows / max(1, sum(rows.values())))
        for client, n_rows in rows.items():
            self._times[client] = min(before[client] + n_rows * weight, self._now + self._credit_rows)
        self._times = {client: time for client, time in self._times.items() if time > self._now - self._credit_rows}
