"""One participant's view of who serves a release: looks nodes up, exchanges facts with them, and keeps the table
fresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swarm.discovery.ports import FactsPort, Rendezvous
from swarm.discovery.signing import rendezvous_key
from swarm.discovery.table import FactTable
from swarm.errors import NodeUnreachable, SwarmError
from swarm.facts import NodeFact, SignedFact
from swarm.terms import Address, Infohash

log = logging.getLogger("swarm.discovery")

OwnFact = Callable[[], SignedFact | None]
"""A participant's own newest fact; None while it has nothing to say."""


@dataclass(frozen=True, slots=True)
class DiscoveryConfig:
    """Rhythm of the exchange.

    exchange_interval_s: between rounds; lower notices changes sooner and costs fanout calls a round.
    announce_interval_s: between DHT announcements; the DHT forgets after 45 minutes.
    fact_ttl_s: how long a node's word holds without renewal; at least three rounds, so that a lost round does no harm.
    fanout: nodes asked a round; news reaches n nodes in about log(n)/log(fanout) rounds.
    max_asked_per_round: addresses dialled at once on hearsay; more find a large swarm sooner, and abuse the DHT more.
    """

    exchange_interval_s: float = 10.0
    announce_interval_s: float = 300.0
    fact_ttl_s: float = 60.0
    fanout: int = 3
    call_timeout_s: float = 5.0
    look_up_timeout_s: float = 5.0
    max_facts_per_exchange: int = 200
    max_asked_per_round: int = 16

    @classmethod
    def lan(cls) -> DiscoveryConfig:
        return cls(exchange_interval_s=3.0, announce_interval_s=60.0, fact_ttl_s=20.0)

    @classmethod
    def loopback(cls) -> DiscoveryConfig:
        return cls(
            exchange_interval_s=0.5, announce_interval_s=5.0, fact_ttl_s=5.0, call_timeout_s=3.0, look_up_timeout_s=1.0
        )

    @classmethod
    def for_network(cls, network: str) -> DiscoveryConfig:
        """network: 'loopback', 'lan' or 'wan'."""
        return cls.loopback() if network == "loopback" else cls.lan() if network == "lan" else cls()


class Discovery:
    """Finds the nodes of one release.

    static_peers: addresses of nodes that the user named. own: this node's own newest fact; None for a client, and for a
    node that has nothing to say yet. announces: False for a node that others cannot dial: the DHT is not told of it.
    """

    def __init__(
        self,
        release: Infohash,
        port: FactsPort,
        config: DiscoveryConfig,
        *,
        rendezvous: Rendezvous | None = None,
        static_peers: Sequence[Address] = (),
        own: OwnFact | None = None,
        announces: bool = True,
    ) -> None:
        self.release = release
        self.config = config
        self.table = FactTable(release, time.time)
        self.outcomes: dict[str, str] = {}  # what was tried -> how it ended, for error messages
        self._port = port
        self._rendezvous = rendezvous
        self._static = tuple(static_peers)
        self._announces = announces
        self._own: OwnFact = own if own is not None else _nothing
        self._wake = asyncio.Event()

    def nodes(self) -> tuple[NodeFact, ...]:
        """The facts in force, this node's own included."""
        own = self._own()
        others = tuple(fact for fact in self.table.live() if own is None or fact.node_id != own.fact.node_id)
        return others if own is None else (own.fact, *others)

    def torrent_peers(self) -> list[Address]:
        """Where the nodes that were met seed from. Hearsay is left out: it could aim a whole swarm at one victim."""
        own = self._own()
        met = [fact for fact in self.table.confirmed() if own is None or fact.node_id != own.fact.node_id]
        return [Address(fact.address.host, fact.torrent_port) for fact in met if fact.torrent_port]

    def to_pass_on(self) -> tuple[SignedFact, ...]:
        own = self._own()
        known = tuple(s for s in self.table.signed() if own is None or s.fact.node_id != own.fact.node_id)
        return (known if own is None else (own, *known))[: self.config.max_facts_per_exchange]

    def receive(self, facts: Sequence[SignedFact]) -> tuple[SignedFact, ...]:
        """A node's half of an exchange: take in what was pushed, give what is known."""
        own = self._own()
        self._take_in(facts, is_local=own is None or own.fact.address.is_loopback)
        return self.to_pass_on()

    def announce_change(self) -> None:
        """This node's own fact changed: pass it on now rather than at the next round."""
        self._wake.set()

    async def refresh(self) -> None:
        """One thorough round: the rendezvous, the static peers and every node that these lead to, in parallel."""
        asked: set[Address] = set()
        look_up = asyncio.create_task(self._look_up())
        try:
            await self._ask_all(self._static, asked)
            await self._ask_all(self._some(await look_up), asked)
        finally:
            look_up.cancel()
        known = {fact.address for fact in self.table.live()}
        await self._ask_all(self._some(sorted(known - asked)), asked)

    async def run(self) -> None:
        """Exchange for as long as the task lives. A round that fails is the network's business: the next one comes."""
        announced_s = float("-inf")
        while True:
            own = self._own()
            is_due = self._announces and time.monotonic() - announced_s >= self.config.announce_interval_s
            if own is not None and self._rendezvous is not None and is_due:
                taken = await self._rendezvous.dht_announce(rendezvous_key(self.release), own.fact.address.port)
                announced_s = time.monotonic() if taken else announced_s
            self._wake.clear()
            try:
                await self._round()
            except Exception:  # the top of a daemon's loop: no round may be the last
                log.exception("a round of discovery failed")
            delay_s = self.config.exchange_interval_s * random.uniform(0.75, 1.25)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):  # wait_for of Python 3.11 loses a cancellation that meets a wake
                    await self._wake.wait()

    def describe_attempts(self) -> str:
        """What was tried and how it ended, for people."""
        return "; ".join(f"{what}: {how}" for what, how in self.outcomes.items()) or "nothing could be tried"

    async def _round(self) -> None:
        """Ask some known nodes; while few are known, look further."""
        own = self._own()
        known = [f.address for f in self.table.live() if own is None or f.node_id != own.fact.node_id]
        if len(known) < self.config.fanout:
            await self.refresh()
            return
        await self._ask_all(random.sample(known, self.config.fanout), set())
        if random.random() < 0.1:
            await self._ask_all(self._some(await self._look_up()), set(known))

    async def _look_up(self) -> list[Address]:
        if self._rendezvous is None:
            return []
        found = await self._rendezvous.dht_look_up(rendezvous_key(self.release), self.config.look_up_timeout_s)
        self.outcomes["DHT"] = (
            f"{len(found)} addresses" if found else f"no node announced within {self.config.look_up_timeout_s:g} s"
        )
        return sorted(found)

    async def _ask_all(self, addresses: Sequence[Address], asked: set[Address]) -> None:
        fresh = [a for a in dict.fromkeys(addresses) if a not in asked and not self._is_own(a)]
        asked.update(fresh)
        await asyncio.gather(*(self._ask(address) for address in fresh))

    def _some(self, addresses: Sequence[Address]) -> Sequence[Address]:
        """At most max_asked_per_round of them, at random: anybody can put any address into a DHT."""
        return random.sample(addresses, min(len(addresses), self.config.max_asked_per_round))

    async def _ask(self, address: Address) -> None:
        self.outcomes.setdefault(str(address), "asked, no answer yet")
        try:
            answered = await self._port.exchange(address, self.release, self.to_pass_on(), self.config.call_timeout_s)
        except SwarmError as error:
            self.outcomes[str(address)] = error.message
            if isinstance(error, NodeUnreachable):
                self.table.forget_address(address, except_for=None)
            return
        except Exception as error:  # whatever a stranger's bytes set off ends this one call, never the node
            log.exception("asking %s failed", address)
            self.outcomes[str(address)] = f"{type(error).__name__} while asking it"
            return
        node_id, facts = answered
        self._take_in(facts, is_local=address.is_loopback)
        self.table.forget_address(address, except_for=node_id)
        self.table.confirm(node_id)
        self.outcomes[str(address)] = f"node {node_id[:8]} answered"

    def _take_in(self, facts: Sequence[SignedFact], *, is_local: bool) -> None:
        """is_local: they come from this machine, so a loopback address among them means this machine's loopback."""
        wanted = (s for s in facts if is_local or not (s.fact.address.is_loopback or s.fact.address.is_unspecified))
        self.table.add_all(itertools.islice(wanted, self.config.max_facts_per_exchange))

    def _is_own(self, address: Address) -> bool:
        own = self._own()
        return own is not None and own.fact.address == address


def _nothing() -> SignedFact | None:
    """A guest's own fact."""
    return None
