"""The loop that has others dial this node, and keeps a place at a relay while they cannot."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from swarm.client.reach import Reach, Verdict, be_dialled, own_address, relays_for
from swarm.discovery import Discovery
from swarm.errors import SwarmError
from swarm.facts import NodeFact, Reachability
from swarm.rpc import Connection, Dialer, let_in
from swarm.terms import Address, NodeId
from swarm.torrent import PortMapping, TorrentSession

log = logging.getLogger("swarm.node")

CHECK_AGAIN_S = 600.0
"""Between two checks of a node that others reach. What changes in between (a mapping, an address) costs it calls."""

TRY_AGAIN_S = 120.0
"""Between two checks of one that they do not: those whom it asked may only have been busy."""

ASK_AGAIN_S = 15.0
"""While those who were asked could not say."""

LOOK_AGAIN_S = 1.0
"""While there is nobody to ask yet, and while no relay was found."""

AVOID_S = 60.0
"""How long a relay that failed is not asked again while there are others."""

MAPPING_TIMEOUT_S = 3.0
"""How long to wait for a router before the first fact names an address; a later answer comes with the next one."""

PAUSES_S = {
    Reachability.REACHABLE: CHECK_AGAIN_S,
    Reachability.UNREACHABLE: TRY_AGAIN_S,
    Reachability.UNKNOWN: ASK_AGAIN_S,
}

OnReach = Callable[[Reach, Verdict], None]


class ReachKeeper:
    """Runs for as long as its task lives, and calls on_reach with every change.

    listening: the port that this node serves. back_door: opens the one that a relay's tunnels lead to. advertise: what
    the user says that others dial. network: loopback, lan or wan.
    """

    def __init__(
        self, node_id: NodeId, dialer: Dialer, discovery: Discovery, listening: Address, on_reach: OnReach, *,
        back_door: Callable[[], Awaitable[Address]], network: str, advertise: Address | None = None,
    ) -> None:  # fmt: skip
        self._node_id = node_id
        self._dialer = dialer
        self._discovery = discovery
        self._listening = listening
        self._on_reach = on_reach
        self._back_door = back_door
        self._network = network
        self._advertise = advertise
        self._mapping: PortMapping | None = None
        self._verdict = Verdict(Reachability.UNKNOWN)
        self._failed: dict[NodeId, float] = {}  # relays, and until when to leave them alone (monotonic)
        self._relaying: asyncio.Task[None] | None = None
        self._letting_in: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> Address:
        """What this node calls itself where no relay is needed."""
        mapped = None if self._mapping is None else self._mapping.now.address
        return own_address(self._listening, self._advertise, mapped)

    async def begin(self, torrents: TorrentSession) -> Reach:
        """What to say before anybody has dialled this node; asks the router to let them, where there may be one."""
        if not self._listening.is_loopback:
            self._mapping = torrents.map_port(self._listening.port)
            await self._mapping.settle(MAPPING_TIMEOUT_S)
        return Reach(self.address)

    async def run(self) -> None:
        try:
            while True:
                try:
                    await self._check()
                except Exception:  # the top of a daemon's loop: no check may be the last, and the place is kept
                    log.exception("a check of who reaches this node failed")
                verdict = self._verdict
                await asyncio.sleep(PAUSES_S[verdict.reachability] if verdict.n_asked else LOOK_AGAIN_S)
        finally:
            await _end(self._relaying)
            await asyncio.gather(*map(_end, self._letting_in))

    async def _check(self) -> None:
        """Be dialled, and keep or give up the relay's place accordingly."""
        verdict = self._verdict = await self._be_dialled()
        if verdict.reachability is Reachability.REACHABLE:
            found = self._advertise or Address(verdict.host, self.address.port)
            await _end(self._relaying)
            self._relaying = None
            self._on_reach(Reach(found, Reachability.REACHABLE), verdict)
        elif verdict.reachability is Reachability.UNREACHABLE and self._relaying is None:
            self._relaying = asyncio.create_task(self._be_relayed())

    async def _be_dialled(self) -> Verdict:
        met = [fact for fact in self._discovery.table.confirmed() if fact.node_id != self._node_id]
        random.shuffle(met)
        address = self.address
        verdict = await be_dialled(self._dialer, met, address, self._network)
        is_elsewhere = self._advertise is not None and verdict.host != self._advertise.host
        if verdict.reachability is Reachability.UNREACHABLE and is_elsewhere:
            # the address that was dialled is not the one that the user named
            return replace(verdict, reachability=Reachability.UNKNOWN)
        return verdict

    async def _be_relayed(self) -> None:
        """Keep a place at some relay, whatever becomes of each."""
        while True:
            relay = self._choose()
            if relay is None:
                self._on_reach(Reach(self.address, Reachability.UNREACHABLE), self._verdict)
                await asyncio.sleep(LOOK_AGAIN_S)
                continue
            if relay.node_id in self._failed:  # and so have all the others
                await asyncio.sleep(LOOK_AGAIN_S)
            try:
                await self._keep_place(relay)
            except SwarmError as error:
                log.info("relay %s: %s", relay.node_id[:8], error.message)
            self._failed[relay.node_id] = time.monotonic() + AVOID_S

    def _choose(self) -> NodeFact | None:
        """The best relay that has not failed lately; when all have, the best."""
        now_s = time.monotonic()
        self._failed = {node_id: until_s for node_id, until_s in self._failed.items() if until_s > now_s}
        facts, rtts_s = self._discovery.others(), self._discovery.rtts.rtts_s()
        relays = relays_for(facts, rtts_s, frozenset(self._failed)) or relays_for(facts, rtts_s, frozenset())
        return relays[0] if relays else None

    async def _keep_place(self, relay: NodeFact) -> None:
        """Serve what comes through this relay until the place is lost. Raises: what ended it."""
        connection = await self._dialer.connect(relay.address, relay.node_id)
        address = Address(relay.address.host, relay.address.port, self._node_id)
        local = await self._back_door()
        async with contextlib.aclosing(connection.reserve()) as tunnels:
            async for tunnel in tunnels:
                if tunnel:  # it may outlast the place: a relay that is about to stop takes its time
                    task = asyncio.create_task(_let_in(connection, tunnel, local))
                    self._letting_in.add(task)
                    task.add_done_callback(self._letting_in.discard)
                else:
                    self._on_reach(Reach(address, Reachability.UNREACHABLE, relay.node_id), self._verdict)


async def _let_in(connection: Connection, tunnel: bytes, local: Address) -> None:
    try:
        await let_in(await connection.accept(tunnel), local)
    except SwarmError as error:  # the relay is gone: the place's own stream says so too
        log.info("a tunnel ended: %s", error.message)


async def _end(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
