"""The experts of one layer for one batch: asked for, hedged and asked for elsewhere until all have answered.

Everything here runs in one event loop, as callbacks rather than tasks: at a round trip of nothing, what a layer's
experts take is what this code takes.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from node.experts.choice import choose_hosts
from node.experts.link import Link
from node.stage import rows_of, tensor_of
from swarm.errors import DeadlineExceeded, ExpertUnavailable, StageFull, SwarmError
from swarm.messages import ExpertAnswer, ExpertCall, Rows
from swarm.terms import ExpertId

HOLD_S = 1.0
"""How long a call waits for a host of an expert that has none. Longer hides longer absences from sessions; meanwhile
whoever could go another way waits too."""

FULL_S = 10.0
"""For how much longer it waits for hosts that have too much to do: they will be done with some of it."""

CONNECT_S = 0.2
"""After it another host is asked too where one has no connection yet."""

LOOK_AGAIN_S = 0.02
"""How often a call that waits for a host looks for one."""

MAX_ANSWER_S = 60.0
"""After it a host whose connection lives but which does not answer counts as lost."""


class Hosts(Protocol):
    """What a call wants to know of the hosts, and tells of them."""

    def links_of(self, expert: ExpertId, besides: Link | None = None) -> Sequence[Link]:
        """Who may be asked for it now, best known first among equal ones."""
        ...

    def rest(self, link: Link, expert: ExpertId | None = None) -> None:
        """It failed, altogether or this expert: others first."""
        ...

    def wake(self, link: Link, layer_idx: int, expert_idxs: Sequence[int]) -> None:
        """It answered."""
        ...


@dataclass(slots=True, eq=False)
class _Ask:
    """A message to one host. expert_idxs: those that it asks for."""

    link: Link
    request_id: int
    expert_idxs: tuple[int, ...]
    n_rows: int
    asked_s: float
    is_hedged: bool = False

    @property
    def hedge_at_s(self) -> float:
        """When to ask another host too, if no answer has come."""
        if self.is_hedged:
            return math.inf
        return self.asked_s + (self.link.pace.hedge_s(self.n_rows) if self.link.is_up else CONNECT_S)


class Call:
    """begin() once; then `done` is called with the answers, expert_idx -> (n, D), or with what went wrong.

    x: (T, D). wanted: expert_idx -> which rows of x it gets. count: called with the host of each message that is sent.
    """

    def __init__(
        self,
        hosts: Hosts,
        layer_idx: int,
        x: Tensor,
        wanted: Mapping[int, Sequence[int]],
        done: Callable[[Call, Mapping[int, Tensor] | Exception], None],
        count: Callable[[Link], None],
    ) -> None:
        self.n_rows = x.shape[0]
        self.began_s = 0.0
        self._hosts = hosts
        self._layer_idx = layer_idx
        self._x = x
        self._wanted = wanted
        self._done: Callable[[Call, Mapping[int, Tensor] | Exception], None] | None = done
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._answers: dict[int, Tensor] = {}
        self._asks: dict[_Ask, None] = {}
        self._encoded: dict[tuple[int, ...], Rows] = {}  # of x, what was sent to somebody already
        self._stuck_s: dict[int, float] = {}  # since when nobody answers for an expert
        self._failed: set[tuple[Link, int]] = set()
        self._apart: set[int] = set()  # to be asked for in messages of their own
        self._why: SwarmError | None = None

    def begin(self) -> None:
        self.began_s = time.monotonic()
        self._safely(self._go_on)

    def end(self, error: Exception) -> None:
        """Whoever waits for it gets this."""
        self._finish(error)

    # -- the events ------------------------------------------------------------------------------------------------

    def _safely(self, step: Callable[[], None]) -> None:
        """What goes wrong is this call's, and not the business of the stream or the timer that set it off."""
        if self._done is None:
            return
        try:
            step()
        except Exception as error:  # whatever it was: whoever waits must hear of it
            self._finish(error)

    def _finish(self, outcome: Mapping[int, Tensor] | Exception) -> None:
        done, self._done = self._done, None
        if self._timer is not None:
            self._timer.cancel()
        for ask in self._asks:
            ask.link.forget(ask.request_id)
        self._asks.clear()
        if done is not None:
            done(self, outcome)

    def _go_on(self) -> None:
        """Ask for what nobody is asked for, and wait; or be done."""
        if len(self._answers) == len(self._wanted):
            self._finish(self._answers)
            return
        self._ask_for_missing()
        self._set_timer()

    def _set_timer(self) -> None:
        """Wake up when somebody is late, or to look again for a host where there is none."""
        if self._timer is not None:
            self._timer.cancel()
        due_s = [min(ask.hedge_at_s, self._over_at_s(ask)) for ask in self._asks]
        if any(expert_idx not in self._answers for expert_idx in self._stuck_s):
            due_s.append(time.monotonic() + LOOK_AGAIN_S)
        self._timer = self._loop.call_later(max(0.0, min(due_s) - time.monotonic()), self._safely, self._on_time)

    def _on_time(self) -> None:
        now_s = time.monotonic()
        for ask in list(self._asks):
            if self._over_at_s(ask) <= now_s:
                ask.link.forget(ask.request_id)
                del self._asks[ask]
                error = DeadlineExceeded(f"{ask.link.host.address} does not answer")
                self._give_up(ask, error, since_s=ask.asked_s)
            elif ask.hedge_at_s <= now_s:
                self._hedge(ask)
        self._go_on()

    def _over_at_s(self, ask: _Ask) -> float:
        """When nothing can be hoped for any more: of a host without a connection, once an expert has had none for too
        long.
        """
        if ask.link.is_up:
            return ask.asked_s + MAX_ANSWER_S
        return min(ask.asked_s, *(self._stuck_s.get(e, math.inf) for e in ask.expert_idxs)) + HOLD_S

    def _take(self, ask: _Ask, reply: ExpertAnswer | SwarmError) -> None:
        if ask not in self._asks:
            return
        del self._asks[ask]
        if isinstance(reply, ExpertAnswer):
            try:
                rows = tensor_of(reply.rows, self._x.shape[1], self._x.device)
            except SwarmError as error:
                self._give_up(ask, error, since_s=time.monotonic())
            else:
                self._keep(ask, rows)
        else:
            full_s = FULL_S if isinstance(reply, StageFull) else 0.0
            self._give_up(ask, reply, since_s=time.monotonic() + full_s)
        self._go_on()

    def _keep(self, ask: _Ask, rows: Tensor) -> None:
        self._hosts.wake(ask.link, self._layer_idx, ask.expert_idxs)
        counts = [len(self._wanted[expert_idx]) for expert_idx in ask.expert_idxs]
        parts = rows.split(counts) if len(counts) > 1 else (rows,)
        for expert_idx, answer in zip(ask.expert_idxs, parts, strict=True):
            self._answers.setdefault(expert_idx, answer)
            self._stuck_s.pop(expert_idx, None)
        for late in list(self._asks):
            if all(expert_idx in self._answers for expert_idx in late.expert_idxs):
                late.link.forget(late.request_id)
                del self._asks[late]

    def _give_up(self, ask: _Ask, error: SwarmError, since_s: float) -> None:
        """This host failed these experts; since then nobody answers for them."""
        self._why = error
        if ask.link.is_up and len(ask.expert_idxs) > 1:  # it may lack one of them only
            self._apart.update(ask.expert_idxs)
            return
        if ask.link.is_up:  # it refused the call, and may take others
            for expert_idx in ask.expert_idxs:
                self._hosts.rest(ask.link, ExpertId(self._layer_idx, expert_idx))
        else:
            self._hosts.rest(ask.link)
        for expert_idx in ask.expert_idxs:
            self._stuck_s.setdefault(expert_idx, since_s)
            self._failed.add((ask.link, expert_idx))

    # -- asking ----------------------------------------------------------------------------------------------------

    def _ask_for_missing(self) -> None:
        """Somebody for every expert that nobody is asked for. Raises: ExpertUnavailable."""
        asked = {expert_idx for ask in self._asks for expert_idx in ask.expert_idxs}
        candidates: dict[int, Sequence[Link]] = {}
        for expert_idx in self._wanted:
            if expert_idx in asked or expert_idx in self._answers:
                continue
            links = self._hosts.links_of(ExpertId(self._layer_idx, expert_idx))
            if links:
                candidates[expert_idx] = links
            else:
                self._stuck_s.setdefault(expert_idx, time.monotonic())
            is_hopeless = time.monotonic() - self._stuck_s.get(expert_idx, math.inf) >= HOLD_S
            if is_hopeless and not any(link.is_up and (link, expert_idx) not in self._failed for link in links):
                raise self._unavailable(expert_idx)
        self._ask(candidates)

    def _hedge(self, ask: _Ask) -> None:
        """Ask others too, where there are any; for a host that is only slow, only such as were met: it does answer."""
        ask.is_hedged = True
        candidates: dict[int, Sequence[Link]] = {}
        for expert_idx in ask.expert_idxs:
            links = self._hosts.links_of(ExpertId(self._layer_idx, expert_idx), besides=ask.link)
            if ask.link.is_up:
                links = [link for link in links if link.is_there]
            if links and expert_idx not in self._answers:
                candidates[expert_idx] = links
        self._ask(candidates)

    def _ask(self, candidates: Mapping[int, Sequence[Link]]) -> None:
        for link, expert_idxs in self._chosen(candidates).items():
            together = tuple(expert_idx for expert_idx in expert_idxs if expert_idx not in self._apart)
            alone = [(expert_idx,) for expert_idx in expert_idxs if expert_idx in self._apart]
            for message in filter(None, (together, *alone)):
                self._send(link, message)

    def _chosen(self, candidates: Mapping[int, Sequence[Link]]) -> Mapping[Link, Sequence[int]]:
        links = {link for links in candidates.values() for link in links}
        if len(links) == 1:
            return {links.pop(): sorted(candidates)}
        n_rows = sum(len(self._wanted[expert_idx]) for expert_idx in candidates)
        return choose_hosts(candidates, {link: link.cost_s(n_rows) for link in links})

    def _send(self, link: Link, expert_idxs: tuple[int, ...]) -> None:
        call = self._message(link.new_id(), expert_idxs)
        ask = _Ask(link, call.request_id, expert_idxs, call.n_answers, time.monotonic())
        self._asks[ask] = None
        self._count(link)
        link.ask(call, lambda reply: self._safely(lambda: self._take(ask, reply)))

    def _message(self, request_id: int, expert_idxs: Sequence[int]) -> ExpertCall:
        """For these experts and, of the rows of x, those that they get: each once."""
        row_idxs = tuple(sorted({row_idx for e in expert_idxs for row_idx in self._wanted[e]}))
        nth = {row_idx: i for i, row_idx in enumerate(row_idxs)}
        rows = self._encoded.get(row_idxs)
        if rows is None:
            with torch.inference_mode():
                x = self._x if len(row_idxs) == self.n_rows else self._x[list(row_idxs)]
                rows = self._encoded[row_idxs] = rows_of(x)
        of_experts = tuple((e, tuple(nth[i] for i in self._wanted[e])) for e in expert_idxs)
        return ExpertCall(request_id, self._layer_idx, of_experts, rows)

    def _unavailable(self, expert_idx: int) -> ExpertUnavailable:
        tried = f"; the last that was tried: {self._why.message}" if self._why is not None else ""
        return ExpertUnavailable(
            f"layer {self._layer_idx} expert {expert_idx} has no host; one is started with "
            f"`swarm node start MAGNET --experts {self._layer_idx}:{expert_idx}`{tried}"
        )
