"""One participant's view of who serves a release: looks nodes up, exchanges facts with them, and keeps the table
fresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from swarm.discovery.ports import FactsPort, Rendezvous
from swarm.discovery.rtts import RttBook
from swarm.discovery.signing import rendezvous_key
from swarm.discovery.table import MAX_TTL_S, FactTable
from swarm.errors import NodeUnreachable, SwarmError
from swarm.facts import MAX_TAG, Known, NodeFact, NodeState, Reachability, SignedFact
from swarm.terms import Address, Infohash, NodeId, id_tag

log = logging.getLogger("swarm.discovery")

ANNOUNCE_CHECK_S = 0.5
"""Between two looks at whether this node has something to announce."""

OTHERS_S = 0.5
"""How long the other meeting places have once one has named somebody."""

CHECKED_AT_ONCE = 16
"""Signatures, at about 0.1 ms each, before others of the event loop have their turn."""

OwnFact = Callable[[], SignedFact | None]
"""A participant's own newest fact; None while it has nothing to say."""


@dataclass(frozen=True, slots=True)
class DiscoveryConfig:
    """Rhythm of the exchange.

    exchange_interval_s: between rounds; lower notices changes sooner and costs fanout calls a round. The first ones
    come sooner, from first_interval_s on, each pause twice as long as the one before.
    announce_interval_s: between DHT announcements; the DHT forgets after 45 minutes.
    fact_ttl_s: how long a node's word holds without renewal; at least three rounds, so that a lost round does no harm.
    full_rate_nodes: beyond so many, words hold longer in proportion, so that renewing them costs no node more.
    fanout: nodes asked a round; news reaches n nodes in about log(n)/log(fanout) rounds.
    max_asked_per_round: addresses dialled at once on hearsay; more find a large swarm sooner, and abuse the DHT more.
    max_pushed: facts told unasked in one call, and most taken in from a stranger.
    max_given: facts in one answer. max_known: nodes whose sequence numbers one request lists, 14 bytes each.
    max_answers: that one node is asked for in a row, while it has more; a table of 10,000 takes about 25.
    """

    exchange_interval_s: float = 10.0
    first_interval_s: float = 0.5
    announce_interval_s: float = 300.0
    fact_ttl_s: float = 60.0
    full_rate_nodes: int = 1000
    fanout: int = 3
    call_timeout_s: float = 5.0
    look_up_timeout_s: float = 5.0
    max_asked_per_round: int = 16
    max_pushed: int = 100
    max_given: int = 1000
    max_known: int = 1000
    max_answers: int = 32

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

    def ttl_among(self, n_nodes: int) -> float:
        """How long a word is to hold in a swarm of so many."""
        return min(MAX_TTL_S, self.fact_ttl_s * max(1.0, n_nodes / self.full_rate_nodes))


class Discovery:
    """Finds the nodes of one release.

    rendezvous: where nodes may have left their addresses. static_peers: addresses of nodes that the user named.
    own: this node's own newest fact; None for a client, and for a node that has nothing to say yet.
    announces: False for a node that others cannot dial, whatever it finds out about itself.
    rtts: round trips to the nodes that were asked.
    """

    def __init__(
        self,
        release: Infohash,
        port: FactsPort,
        config: DiscoveryConfig,
        *,
        rendezvous: Sequence[Rendezvous] = (),
        static_peers: Sequence[Address] = (),
        own: OwnFact | None = None,
        announces: bool = True,
    ) -> None:
        self.release = release
        self.config = config
        self.table = FactTable(release, time.time)
        self.rtts = RttBook()
        self.outcomes: dict[str, str] = {}  # what was tried -> how it ended, for error messages
        self._port = port
        self._rendezvous = tuple(rendezvous)
        self._static = tuple(static_peers)
        self._announces = announces
        self._own: OwnFact = own if own is not None else _nothing
        self._wake = asyncio.Event()
        self._refreshing: asyncio.Task[None] | None = None

    def nodes(self) -> tuple[NodeFact, ...]:
        """The facts in force, this node's own included."""
        own = self._own()
        return self.others() if own is None else (own.fact, *self.others())

    def others(self) -> tuple[NodeFact, ...]:
        """The facts in force of other nodes."""
        own_id = self._own_id()
        return tuple(fact for fact in self.table.live() if fact.node_id != own_id)

    @property
    def fact_ttl_s(self) -> float:
        """How long this node's own word is to hold, in a swarm of the size that is known."""
        return self.config.ttl_among(self.table.n_nodes)

    def torrent_peers(self) -> list[Address]:
        """Where the nodes that were met seed from. Hearsay is left out: it could aim a whole swarm at one victim."""
        own_id = self._own_id()
        met = [fact for fact in self.table.confirmed() if fact.node_id != own_id and not fact.address.target]
        return [Address(fact.address.host, fact.torrent_port) for fact in met if fact.torrent_port]

    def nearest(self, n: int) -> tuple[tuple[int, float], ...]:
        """(id_tag, round trip in seconds) of the n nearest nodes in force, for this node's own fact."""
        return self.rtts.nearest(n, frozenset(fact.node_id for fact in self.table.confirmed()))

    async def receive(self, facts: Sequence[SignedFact], known: Known | None = None) -> tuple[list[SignedFact], bool]:
        """A node's half of an exchange: take in what was pushed, give what is known here beyond `known`.

        -> (facts, whether there are more for who asks again).
        """
        own = self._own()
        is_local = own is None or own.fact.address.is_loopback
        await self._take_in(facts[: self.config.max_pushed], is_local=is_local)
        known = known or Known()
        own_id = self._own_id()
        others = (signed for signed in self.table.signed() if signed.fact.node_id != own_id)
        lacking = [signed for signed in (own, *others) if signed is not None and known.lacks(signed.fact)]
        return lacking[: self.config.max_given], len(lacking) > self.config.max_given

    def announce_change(self) -> None:
        """This node's own fact changed: pass it on now rather than at the next round."""
        self._wake.set()

    async def refresh(self) -> None:
        """One thorough round: every rendezvous, the static peers and every node that these lead to, in parallel.

        Those who want one while it runs share it: many who wait for a route ask no oftener than one.
        """
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())
        await asyncio.shield(self._refreshing)

    async def _refresh(self) -> None:
        asked: set[Address] = set()
        look_up = asyncio.create_task(self._look_up())
        try:
            await self._ask_all(self._static, asked)
            await self._ask_all(self._some(await look_up), asked)
        finally:
            look_up.cancel()
        known = {fact.address for fact in self.table.live()}
        await self._ask_all(self._some(sorted(known - asked)), asked)

    async def meet(self, nodes: Sequence[NodeFact]) -> frozenset[NodeId]:
        """Ask these nodes themselves, at most max_asked_per_round of them -> who answered where they are said to be."""
        addresses = sorted({fact.address for fact in nodes})
        answered = await asyncio.gather(*(self._ask(address) for address in self._some(addresses)))
        return frozenset(node_id for node_id in answered if node_id is not None)

    async def measure(self, nodes: Sequence[NodeFact]) -> None:
        """Take the round trip to the first max_asked_per_round of these nodes, by an exchange of nothing with each."""
        addresses = list(dict.fromkeys(fact.address for fact in nodes))[: self.config.max_asked_per_round]
        await asyncio.gather(*(self._ping(address) for address in addresses if not self._is_own(address)))

    async def run(self) -> None:
        """Exchange for as long as the task lives. A round that fails is the network's business: the next one comes."""
        pause_s = min(self.config.first_interval_s, self.config.exchange_interval_s)
        announcing = asyncio.create_task(self._keep_announced())
        try:
            while True:
                self._wake.clear()
                try:
                    await self._round()
                except Exception:  # the top of a daemon's loop: no round may be the last
                    log.exception("a round of discovery failed")
                with contextlib.suppress(TimeoutError):
                    # wait_for of Python 3.11 loses a cancellation that meets a wake
                    async with asyncio.timeout(pause_s * random.uniform(0.75, 1.25)):
                        await self._wake.wait()
                pause_s = min(2 * pause_s, self.config.exchange_interval_s)
        finally:
            announcing.cancel()
            await asyncio.gather(announcing, return_exceptions=True)

    async def say_goodbye(self, timeout_s: float = 1.0) -> None:
        """Tell this node's last word to some that were met; they pass it on."""
        own_id = self._own_id()
        met = [fact.address for fact in self.table.confirmed() if fact.node_id != own_id]
        some = random.sample(met, min(len(met), 2 * self.config.fanout))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._ask_all(some, set())

    async def close(self) -> None:
        """Leave the meeting places."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        await asyncio.gather(*(place.close() for place in self._rendezvous))

    def describe_attempts(self) -> str:
        """What was tried and how it ended, for people."""
        return "; ".join(f"{what}: {how}" for what, how in self.outcomes.items()) or "nothing could be tried"

    # -- rounds --------------------------------------------------------------------------------------------------

    async def _round(self) -> None:
        """Ask some known nodes; while few are known, look further."""
        known = [fact.address for fact in self.others()]
        if len(known) < self.config.fanout:
            await self.refresh()
            return
        await self._ask_all(random.sample(known, self.config.fanout), set())
        if random.random() < 0.1:
            await self._ask_all(self._some(await self._look_up()), set(known))

    async def _keep_announced(self) -> None:
        """Leave this node's address at every rendezvous, again whenever that is due; rounds do not wait for it."""
        announced_s: dict[str, float] = {}  # when it was last taken, by rendezvous
        while self._announces and self._rendezvous:
            own = self._own()
            port = own.fact.address.port if own is not None and _can_be_dialled(own.fact) else 0
            for place in self._rendezvous if port else ():
                since_s = time.monotonic() - announced_s.get(place.name, float("-inf"))
                if since_s < self.config.announce_interval_s:
                    continue
                try:
                    if await place.announce(rendezvous_key(self.release), port):
                        announced_s[place.name] = time.monotonic()
                except SwarmError as error:
                    log.info("%s took no announcement: %s", place.name, error.message)
            await asyncio.sleep(min(self.config.exchange_interval_s, ANNOUNCE_CHECK_S))

    async def _look_up(self) -> list[Address]:
        """What the meeting places know. Once one of them has named somebody, the others are not waited for long."""
        timeout_s, key = self.config.look_up_timeout_s, rendezvous_key(self.release)
        asked = {asyncio.create_task(place.look_up(key, timeout_s)): place.name for place in self._rendezvous}
        found: set[Address] = set()
        waiting = set(asked)
        try:
            while waiting:
                done, waiting = await asyncio.wait(
                    waiting, timeout=OTHERS_S if found else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    here = task.result()
                    found |= here
                    none = f"no node announced within {timeout_s:g} s"
                    self.outcomes[asked[task]] = _count(here) if here else none
                if not done:
                    break
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        return sorted(found)

    async def _ask_all(self, addresses: Sequence[Address], asked: set[Address]) -> None:
        fresh = [a for a in dict.fromkeys(addresses) if a not in asked and not self._is_own(a)]
        asked.update(fresh)
        await asyncio.gather(*(self._ask(address) for address in fresh))

    def _some(self, addresses: Sequence[Address]) -> Sequence[Address]:
        """At most max_asked_per_round of them, at random: anybody can put any address into a DHT."""
        return random.sample(addresses, min(len(addresses), self.config.max_asked_per_round))

    async def _ask(self, address: Address) -> NodeId | None:
        """Exchange with the node there, until it has given what it knows -> who that is; None where nobody answered."""
        node_id: NodeId | None = None
        self.outcomes.setdefault(str(address), "asked, no answer yet")
        own = self._own()
        pushed = (*(() if own is None else (own,)), *self.table.news(self.config.max_pushed - 1))
        first = 0
        try:
            for _ in range(self.config.max_answers):
                known = self._known(first)
                node_id, more = await self._ask_for(address, pushed, known)
                pushed = ()
                if not more and known.last == MAX_TAG:
                    break
                first = first if more else known.last + 1
        except SwarmError as error:
            self.outcomes[str(address)] = error.message
            if isinstance(error, NodeUnreachable):
                self.table.forget_address(address, except_for=None)
        except Exception as error:  # whatever a stranger's bytes set off ends this one call, never the node
            log.exception("asking %s failed", address)
            self.outcomes[str(address)] = f"{type(error).__name__} while asking it"
        return node_id

    async def _ping(self, address: Address) -> None:
        nothing = Known(MAX_TAG, MAX_TAG)
        with contextlib.suppress(SwarmError):  # who does not answer stays unmeasured: rounds find out why
            answer = await self._port.exchange(address, self.release, (), nothing, self.config.call_timeout_s)
            self.rtts.note(answer.node_id, answer.rtt_s)

    async def _ask_for(self, address: Address, pushed: Sequence[SignedFact], known: Known) -> tuple[NodeId, bool]:
        """One exchange -> (who answered, whether it is worth another)."""
        answer = await self._port.exchange(address, self.release, pushed, known, self.config.call_timeout_s)
        news = await self._take_in(answer.facts[: self.config.max_given], is_local=address.is_loopback)
        self.table.forget_address(address, except_for=answer.node_id)
        self.table.confirm(answer.node_id)
        self.rtts.note(answer.node_id, answer.rtt_s)
        self.outcomes[str(address)] = f"node {answer.node_id[:8]} answered"
        return answer.node_id, answer.more and news > 0

    async def _take_in(self, facts: Sequence[SignedFact], *, is_local: bool) -> int:
        """How many were news. Others' calls go on between two handfuls of signatures.

        is_local: they come from this machine, so a loopback address among them means this machine's loopback.
        """
        wanted = [s for s in facts if is_local or not (s.fact.address.is_loopback or s.fact.address.is_unspecified)]
        news = 0
        for start in range(0, len(wanted), CHECKED_AT_ONCE):
            news += self.table.add_all(wanted[start : start + CHECKED_AT_ONCE])
            await asyncio.sleep(0)
        return news

    def _known(self, first: int) -> Known:
        """What is known here, this node's own fact included: nobody need tell us that."""
        known, own = self.table.known(self.config.max_known, first), self._own()
        if own is None:
            return known
        return replace(known, seqs={**known.seqs, id_tag(own.fact.node_id): own.fact.seq})

    def _own_id(self) -> NodeId | None:
        own = self._own()
        return None if own is None else own.fact.node_id

    def _is_own(self, address: Address) -> bool:
        own = self._own()
        return own is not None and own.fact.address == address


def _count(addresses: set[Address]) -> str:
    return f"{len(addresses)} address{'es' if len(addresses) > 1 else ''}"


def _can_be_dialled(fact: NodeFact) -> bool:
    is_here = fact.state is not NodeState.LEFT and not fact.address.target
    return is_here and fact.reachability is not Reachability.UNREACHABLE


def _nothing() -> SignedFact | None:
    """A guest's own fact."""
    return None
