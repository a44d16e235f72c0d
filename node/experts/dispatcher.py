"""Asks other nodes for the experts that are not here: both experts of a token at once, one message to each host.

A host that is late is hedged, one that is lost is replaced, and one that comes back is found again, all within a call.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from node.experts.call import Call
from node.experts.directory import Directory, Host
from node.experts.link import Link
from node.experts.pace import FEW_ROWS, SMOOTHING
from node.model import Answers
from swarm.errors import ExpertUnavailable, SwarmError
from swarm.messages import ExpertOpen
from swarm.rpc import Dialer
from swarm.terms import ExpertId, NodeId

REST_S = 0.1
MAX_REST_S = 5.0
"""How long a host is left alone after it failed: each time twice as long as the last, while others have its experts;
otherwise REST_S."""

MAX_MEETING = 8
"""Hosts that are dialled at once only to learn whether they are there: what is said of nodes is hearsay until then."""

SWEEP_S = 10.0
"""How often hosts that nobody names any more are forgotten."""


@dataclass(frozen=True, slots=True)
class _Rest:
    """until_s where others can do the work, at_least_until_s where nobody else will (monotonic)."""

    until_s: float
    at_least_until_s: float
    length_s: float


class Dispatcher:
    """Implements node.model's Elsewhere for the compute thread of a stage; everything else in one event loop."""

    def __init__(self, directory: Directory, dialer: Dialer, opening: ExpertOpen) -> None:
        self.wait_s = 0.0
        """What a layer's experts take that are not here, as measured; 0.0 while they were never asked for."""
        self.asked: Counter[NodeId] = Counter()
        """Messages to each host so far, while it is one."""
        self._directory = directory
        self._dialer = dialer
        self._opening = opening
        self._links: dict[Host, Link] = {}
        self._resting: dict[Link | tuple[Link, ExpertId], _Rest] = {}
        self._meeting: set[Link] = set()
        self._swept_s = time.monotonic()
        self._calls: dict[Call, Future[Answers]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._closed = False

    def apply(self, layer_idx: int, x: Tensor, wanted: Mapping[int, Sequence[int]]) -> Future[Answers]:
        """Raises, through the future: ExpertUnavailable when nobody answers for an expert for HOLD_S."""
        future: Future[Answers] = Future()
        self._loop.call_soon_threadsafe(self._begin_call, future, layer_idx, x, wanted)
        return future

    async def close(self) -> None:
        """End every call; whoever waits for one gets an error."""
        self._closed = True
        for call in list(self._calls):
            call.end(ExpertUnavailable("the node is shutting down"))
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(link.close() for link in self._links.values()))

    def _begin_call(
        self, future: Future[Answers], layer_idx: int, x: Tensor, wanted: Mapping[int, Sequence[int]]
    ) -> None:
        if not future.set_running_or_notify_cancel():
            return
        if self._closed:
            future.set_exception(ExpertUnavailable("the node is shutting down"))
            return
        call = Call(self, layer_idx, x, wanted, self._end_call, self._count)
        self._calls[call] = future
        call.begin()  # what goes wrong in it comes out of the future; nothing that can fail may stand before it
        self._sweep()

    def _end_call(self, call: Call, outcome: Answers | Exception) -> None:
        future = self._calls.pop(call)
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
            return
        if call.n_rows <= FEW_ROWS:
            took_s = time.monotonic() - call.began_s
            self.wait_s += (took_s - self.wait_s) * (SMOOTHING if self.wait_s else 1.0)
        future.set_result(outcome)

    def _count(self, link: Link) -> None:
        self.asked[link.host.node_id] += 1

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _sweep(self) -> None:
        """Forget the hosts that have no experts any more, and end their streams."""
        if time.monotonic() - self._swept_s < SWEEP_S:
            return
        self._swept_s = time.monotonic()
        for link in list(self._links.values()):
            if not link.n_asked and not self._directory.names(link.host):
                del self._links[link.host]
                self._run(link.close())
        links = set(self._links.values())
        for what in list(self._resting):
            if (what if isinstance(what, Link) else what[0]) not in links:
                del self._resting[what]
        for node_id in set(self.asked) - {host.node_id for host in self._links}:
            del self.asked[node_id]

    # -- for a call ------------------------------------------------------------------------------------------------

    def links_of(self, expert: ExpertId, besides: Link | None = None) -> Sequence[Link]:
        """Those that are not resting, and of them those that are there if any is; if all rest, those that have rested a
        little. Who is only talked about is met meanwhile.
        """
        links = [link for host in self._directory.hosts_of(expert) if (link := self._link(host)) is not besides]
        awake = links
        rests: dict[Link, list[_Rest]] = {}
        now_s = time.monotonic()
        if self._resting:
            rests = {link: [r for what in (link, (link, expert)) if (r := self._resting.get(what))] for link in links}
            awake = [link for link in links if all(rest.until_s <= now_s for rest in rests[link])]
        there = [link for link in awake if link.is_there]
        if len(there) < len(awake):
            self._meet([link for link in awake if not link.is_there])
        return there or awake or [link for link in links if all(r.at_least_until_s <= now_s for r in rests[link])]

    def _meet(self, strangers: Sequence[Link]) -> None:
        """Dial some of them: first those that failed least."""

        async def meet(link: Link) -> None:
            try:
                await link.meet()
            except SwarmError:
                if not link.n_asked:  # else the call says so
                    self.rest(link)
            finally:
                self._meeting.discard(link)

        for link in sorted(strangers, key=lambda link: rest.length_s if (rest := self._resting.get(link)) else 0.0):
            if len(self._meeting) < MAX_MEETING and link not in self._meeting:
                self._meeting.add(link)
                self._run(meet(link))

    def _link(self, host: Host) -> Link:
        link = self._links.get(host)
        if link is None:
            link = self._links[host] = Link(self._dialer, host, self._opening)
        return link

    def rest(self, link: Link, expert: ExpertId | None = None) -> None:
        """It failed, altogether or this expert: others first."""
        what = link if expert is None else (link, expert)
        before = self._resting.get(what)
        length_s = REST_S if before is None else min(MAX_REST_S, 2 * before.length_s)
        now_s = time.monotonic()
        self._resting[what] = _Rest(now_s + length_s, now_s + REST_S, length_s)

    def wake(self, link: Link, layer_idx: int, expert_idxs: Sequence[int]) -> None:
        """It answered."""
        if not self._resting:
            return
        self._resting.pop(link, None)
        for expert_idx in expert_idxs:
            self._resting.pop((link, ExpertId(layer_idx, expert_idx)), None)
