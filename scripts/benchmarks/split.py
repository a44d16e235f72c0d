"""A client of two processes that have a half of the layers each; it asks as Engine is asked, and in the same turns."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType

from benchmarks.parts import PROFILE, RELEASE, Part
from swarm.client.session import RouteSession
from swarm.facts import Hop
from swarm.identity import NodeKey, issue
from swarm.messages import Open
from swarm.release import ModelArgs
from swarm.rpc import Dialer, RpcConfig
from swarm.terms import Address, SessionId


class Split:
    """An async context manager. addresses: where the parts are dialled, by the client and by each other."""

    def __init__(self, args: ModelArgs, parts: Sequence[Part], addresses: Sequence[Address]) -> None:
        self._args = args
        self._hops = tuple(
            Hop(part.node_id, address, part.holding.stages[0]) for part, address in zip(parts, addresses, strict=True)
        )
        self._tls = issue(NodeKey.generate())
        self._stack = AsyncExitStack()
        self._prompted: dict[int, list[tuple[RouteSession, int]]] = {}

    async def __aenter__(self) -> Split:
        self._dialer = await self._stack.enter_async_context(Dialer(self._tls, RpcConfig.loopback()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def decode(self, prompts: list[list[int]], n_tokens: int) -> float:
        """As Engine.decode."""
        if len(prompts) not in self._prompted:
            self._prompted[len(prompts)] = await asyncio.gather(*map(self._prompt, prompts))
        n_cached = len(prompts[0])

        async def sequence(session: RouteSession, token: int) -> None:
            for position in range(n_cached, n_cached + n_tokens):
                token = (await session.step([[token]], position)).rows[0].ids[0]

        started_s = time.perf_counter()
        await asyncio.gather(*(sequence(session, token) for session, token in self._prompted[len(prompts)]))
        return n_tokens * len(prompts) / (time.perf_counter() - started_s)

    async def _prompt(self, prompt: list[int]) -> tuple[RouteSession, int]:
        opening = Open(
            session_id=SessionId(os.urandom(16).hex()),
            epoch=1,
            release=RELEASE,
            client_id=self._tls.node_id,
            hops=self._hops,
            hop_idx=0,
            profile=PROFILE,
            max_positions=len(prompt) + 64,
            n_top=1,
        )
        session = await self._stack.enter_async_context(RouteSession(self._dialer, opening))
        return session, (await session.step([prompt], 0)).rows[0].ids[0]
