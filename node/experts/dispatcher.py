"""Asks other nodes for the experts that are not here: both experts of a token at once, one message to each host.

A host that is late is hedged, one that is lost is replaced, and one that comes back is found again, all within a call.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from node.experts.choice import choose_hosts
from node.experts.directory import Directory, Host
from node.experts.link import Link
from node.experts.pace import FEW_ROWS, SMOOTHING
from node.model import Answers
from node.stage import rows_of, tensor_of
from swarm.errors import DeadlineExceeded, ExpertUnavailable, StageFull, SwarmError
from swarm.messages import ExpertAnswer, ExpertCall, ExpertOpen
from swarm.rpc import Dialer
from swarm.terms import ExpertId, NodeId

HOLD_S = 1.0
"""How long a call waits for a host of an expert that has none. Longer hides longer absences from sessions; meanwhile
whoever could go another way waits too."""

FULL_S = 10.0
"""For how much longer it waits for hosts that have too much to do: they will be done with some of it."""

REST_S = 0.1
MAX_REST_S = 5.0
"""How long a host is left alone after it failed: each time twice as long as the last, while others have its experts;
otherwise REST_S."""

CONNECT_S = 0.2
"""After it another host is asked too where one has no connection yet."""

LOOK_AGAIN_S = 0.02
"""How often a call that waits for a host looks for one."""

MAX_MEETING = 8
"""Hosts that are dialled at once only to learn whether they are there: what is said of nodes is hearsay until then."""

SWEEP_S = 10.0
"""How often hosts that nobody names any more are forgotten."""

MAX_ANSWER_S = 60.0
"""After it a host whose connection lives but which does not answer counts as lost."""


@dataclass(slots=True, eq=False)
class _Ask:
    """A message to one host. expert_idxs: those that it asks for."""

    link: Link
    expert_idxs: tuple[int, ...]
    n_rows: int
    asked_s: float
    is_hedged: bool = False

    @property
    def hedge_at_s(self) -> float:
        """When to ask another host too, if no answer has come."""
        hedge_s = self.link.pace.hedge_s(self.n_rows) if self.link.is_up else CONNECT_S
        return math.inf if self.is_hedged or hedge_s is None else self.asked_s + hedge_s


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
        self._resting: dict[Host | tuple[Host, ExpertId], _Rest] = {}
        self._meeting: set[Host] = set()
        self._swept_s = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def apply(self, layer_idx: int, x: Tensor, wanted: Mapping[int, Sequence[int]]) -> Future[Answers]:
        """Raises, through the future: ExpertUnavailable when nobody answers for an expert for HOLD_S."""
        future: Future[Answers] = Future()

        def begin() -> None:
            self._sweep()
            self._begin(self._settle(future, layer_idx, x, wanted))

        self._loop.call_soon_threadsafe(begin)
        return future

    async def close(self) -> None:
        """End every call; whoever waits for one gets an error."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(link.close() for link in self._links.values()))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
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
                self._begin(link.close())
        for what in list(self._resting):
            if (what if isinstance(what, Host) else what[0]) not in self._links:
                del self._resting[what]
        for node_id in set(self.asked) - {host.node_id for host in self._links}:
            del self.asked[node_id]

    async def _settle(
        self, future: Future[Answers], layer_idx: int, x: Tensor, wanted: Mapping[int, Sequence[int]]
    ) -> None:
        started_s = time.monotonic()
        try:
            answers = await _Call(self, layer_idx, x, wanted).answers()
        except BaseException as error:
            is_ours = isinstance(error, Exception)
            future.set_exception(error if is_ours else ExpertUnavailable("the node is shutting down"))
            if not is_ours:
                raise
            return
        if x.shape[0] <= FEW_ROWS:
            took_s = time.monotonic() - started_s
            self.wait_s += (took_s - self.wait_s) * (SMOOTHING if self.wait_s else 1.0)
        future.set_result(answers)

    # -- for a call ----------------------------------------------------------------------------------------------

    def hosts_of(self, expert: ExpertId, besides: Host | None = None) -> list[Host]:
        """Those that are not resting, and of them those that are there if any is; if all rest, those that have rested a
        little. Who is only talked about is met meanwhile.
        """
        hosts = [host for host in self._directory.hosts_of(expert) if host != besides]
        now_s = time.monotonic()
        rests = {host: [r for what in (host, (host, expert)) if (r := self._resting.get(what))] for host in hosts}
        awake = [host for host in hosts if all(rest.until_s <= now_s for rest in rests[host])]
        there = [host for host in awake if self.link(host).is_there]
        if len(there) < len(awake):
            self._meet([host for host in awake if not self.link(host).is_there])
        return there or awake or [host for host in hosts if all(rest.at_least_until_s <= now_s for rest in rests[host])]

    def _meet(self, strangers: Sequence[Host]) -> None:
        """Dial some of them: first those that failed least."""

        async def meet(host: Host) -> None:
            try:
                await self.link(host).meet()
            except SwarmError:
                if not self.link(host).n_asked:  # else the call says so
                    self.rest(host)
            finally:
                self._meeting.discard(host)

        for host in sorted(strangers, key=lambda host: rest.length_s if (rest := self._resting.get(host)) else 0.0):
            if len(self._meeting) < MAX_MEETING and host not in self._meeting:
                self._meeting.add(host)
                self._begin(meet(host))

    def link(self, host: Host) -> Link:
        link = self._links.get(host)
        if link is None:
            link = self._links[host] = Link(self._dialer, host, self._opening)
        return link

    def cost_s(self, host: Host, n_rows: int) -> float:
        """What an answer of this host is likely to take: its usual time, longer for what it has been asked already."""
        link = self.link(host)
        return link.pace.expect_s(n_rows) * (1 + link.n_asked / 4)

    def rest(self, what: Host | tuple[Host, ExpertId]) -> None:
        """It failed: others first."""
        before = self._resting.get(what)
        length_s = REST_S if before is None else min(MAX_REST_S, 2 * before.length_s)
        now_s = time.monotonic()
        self._resting[what] = _Rest(now_s + length_s, now_s + REST_S, length_s)

    def wake(self, host: Host, experts: Sequence[ExpertId]) -> None:
        """It answered."""
        self._resting.pop(host, None)
        for expert in experts:
            self._resting.pop((host, expert), None)


class _Call:
    """The experts of one layer for one batch, until all have answered."""

    def __init__(self, dispatcher: Dispatcher, layer_idx: int, x: Tensor, wanted: Mapping[int, Sequence[int]]) -> None:
        self._dispatcher = dispatcher
        self._layer_idx = layer_idx
        self._x = x
        self._wanted = wanted
        self._answers: dict[int, Tensor] = {}
        self._asks: dict[asyncio.Future[ExpertAnswer], _Ask] = {}
        self._stuck_s: dict[int, float] = {}  # since when nobody answers for an expert
        self._failed: set[tuple[Host, int]] = set()
        self._apart: set[int] = set()  # to be asked for in messages of their own
        self._why: SwarmError | None = None

    async def answers(self) -> dict[int, Tensor]:
        try:
            while missing := [expert_idx for expert_idx in self._wanted if expert_idx not in self._answers]:
                self._ask_for_missing(missing)
                await self._wait(missing)
        finally:
            for answered in self._asks:
                answered.cancel()
        return self._answers

    def _ask_for_missing(self, missing: Sequence[int]) -> None:
        """Somebody for every expert that nobody is asked for. Raises: ExpertUnavailable."""
        asked = {expert_idx for ask in self._asks.values() for expert_idx in ask.expert_idxs}
        candidates: dict[int, list[Host]] = {}
        for expert_idx in missing:
            if expert_idx in asked:
                continue
            hosts = self._dispatcher.hosts_of(ExpertId(self._layer_idx, expert_idx))
            if hosts:
                candidates[expert_idx] = hosts
            else:
                self._stuck_s.setdefault(expert_idx, time.monotonic())
            is_hopeless = time.monotonic() - self._stuck_s.get(expert_idx, math.inf) >= HOLD_S
            if is_hopeless and not any(self._is_untried(host, expert_idx) for host in hosts):
                raise self._unavailable(expert_idx)
        self._ask(candidates)

    def _is_untried(self, host: Host, expert_idx: int) -> bool:
        return (host, expert_idx) not in self._failed and self._dispatcher.link(host).is_up

    def _ask(self, candidates: Mapping[int, Sequence[Host]]) -> None:
        n_rows = sum(len(self._wanted[expert_idx]) for expert_idx in candidates)
        hosts = {host for hosts in candidates.values() for host in hosts}
        costs_s = {host: self._dispatcher.cost_s(host, n_rows) for host in hosts}
        for host, expert_idxs in choose_hosts(candidates, costs_s).items():
            together = tuple(expert_idx for expert_idx in expert_idxs if expert_idx not in self._apart)
            alone = [(expert_idx,) for expert_idx in expert_idxs if expert_idx in self._apart]
            for message in filter(None, (together, *alone)):
                self._send(host, message)

    def _send(self, host: Host, expert_idxs: tuple[int, ...]) -> None:
        link = self._dispatcher.link(host)
        call = call_of(link.new_id(), self._layer_idx, self._x, {e: self._wanted[e] for e in expert_idxs})
        self._asks[link.ask(call)] = _Ask(link, expert_idxs, call.n_answers, time.monotonic())
        self._dispatcher.asked[host.node_id] += 1

    async def _wait(self, missing: Sequence[int]) -> None:
        """Until something is answered, or fails, or somebody is late."""
        now_s = time.monotonic()
        due_s = [min(ask.hedge_at_s, self._over_at_s(ask)) for ask in self._asks.values()]
        if any(expert_idx in self._stuck_s for expert_idx in missing):
            due_s.append(now_s + LOOK_AGAIN_S)
        timeout_s = max(0.0, min(due_s) - now_s)
        if not self._asks:
            await asyncio.sleep(timeout_s)
            return
        done, _ = await asyncio.wait(self._asks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for answered in done:
            self._take(answered)
        for answered, ask in list(self._asks.items()):
            if self._over_at_s(ask) <= time.monotonic():
                answered.cancel()
                del self._asks[answered]
                error = DeadlineExceeded(f"{ask.link.host.address} does not answer")
                self._give_up(ask, error, since_s=ask.asked_s)
            elif ask.hedge_at_s <= time.monotonic():
                self._hedge(ask)

    def _over_at_s(self, ask: _Ask) -> float:
        """When nothing can be hoped for any more: of a host without a connection, once an expert has had none for too
        long.
        """
        if ask.link.is_up:
            return ask.asked_s + MAX_ANSWER_S
        return min(ask.asked_s, *(self._stuck_s.get(e, math.inf) for e in ask.expert_idxs)) + HOLD_S

    def _hedge(self, ask: _Ask) -> None:
        """Ask others too, where there are any; for a host that is only slow, only such as were met: it does answer."""
        ask.is_hedged = True
        candidates = {}
        for expert_idx in ask.expert_idxs:
            hosts = self._dispatcher.hosts_of(ExpertId(self._layer_idx, expert_idx), besides=ask.link.host)
            if ask.link.is_up:
                hosts = [host for host in hosts if self._dispatcher.link(host).is_there]
            if hosts and expert_idx not in self._answers:
                candidates[expert_idx] = hosts
        self._ask(candidates)

    def _take(self, answered: asyncio.Future[ExpertAnswer]) -> None:
        ask = self._asks.pop(answered, None)
        if ask is None:  # another one that was done at the same moment has said it all
            answered.exception()
            return
        try:
            rows = tensor_of(answered.result().rows, self._x.shape[1], self._x.device)
        except SwarmError as error:
            full_s = FULL_S if isinstance(error, StageFull) else 0.0
            self._give_up(ask, error, since_s=time.monotonic() + full_s)
            return
        self._dispatcher.wake(ask.link.host, [ExpertId(self._layer_idx, e) for e in ask.expert_idxs])
        counts = [len(self._wanted[expert_idx]) for expert_idx in ask.expert_idxs]
        for expert_idx, answer in zip(ask.expert_idxs, rows.split(counts), strict=True):
            self._answers.setdefault(expert_idx, answer)
            self._stuck_s.pop(expert_idx, None)
        for other, late in list(self._asks.items()):
            if all(expert_idx in self._answers for expert_idx in late.expert_idxs):
                other.cancel()
                del self._asks[other]

    def _give_up(self, ask: _Ask, error: SwarmError, since_s: float) -> None:
        """This host failed these experts; since then nobody answers for them."""
        self._why = error
        if ask.link.is_up and len(ask.expert_idxs) > 1:  # it may lack one of them only
            self._apart.update(ask.expert_idxs)
            return
        if ask.link.is_up:  # it refused the call, and may take others
            for expert_idx in ask.expert_idxs:
                self._dispatcher.rest((ask.link.host, ExpertId(self._layer_idx, expert_idx)))
        else:
            self._dispatcher.rest(ask.link.host)
        for expert_idx in ask.expert_idxs:
            self._stuck_s.setdefault(expert_idx, since_s)
            self._failed.add((ask.link.host, expert_idx))

    def _unavailable(self, expert_idx: int) -> ExpertUnavailable:
        tried = f"; the last that was tried: {self._why.message}" if self._why is not None else ""
        return ExpertUnavailable(
            f"layer {self._layer_idx} expert {expert_idx} has no host; one is started with "
            f"`swarm node start MAGNET --experts {self._layer_idx}:{expert_idx}`{tried}"
        )


def call_of(request_id: int, layer_idx: int, x: Tensor, wanted: Mapping[int, Sequence[int]]) -> ExpertCall:
    """A call for these experts and, of the rows x (T, D), those that they get: each once."""
    with torch.inference_mode():
        row_idxs = sorted({row_idx for rows in wanted.values() for row_idx in rows})
        if len(row_idxs) < x.shape[0]:
            x = x[row_idxs]
        nth = {row_idx: i for i, row_idx in enumerate(row_idxs)}
        of_experts = tuple((expert_idx, tuple(nth[i] for i in wanted[expert_idx])) for expert_idx in sorted(wanted))
        return ExpertCall(request_id, layer_idx, of_experts, rows_of(x))
