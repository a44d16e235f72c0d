"""A node on a machine of its own, as seen from this one: `python -m benchmarks.elsewhere MAGNET N_LAYERS STEP_MS`.

Its server, its sessions and what it says of itself are a node's. In place of layers it has a wait: each step takes
STEP_MS, whatever else is under way, and none of this machine's processor. Its logits come from the position alone.
"""

from __future__ import annotations

import asyncio
import functools
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from node.server import DialBack, FactsHandler, SessionHandler
from node.stage import Stage, StepOutput
from swarm import __version__
from swarm.client.network import NetworkConfig, RpcFactsPort
from swarm.discovery import Discovery, sign_fact
from swarm.facts import NodeFact, NodeState, SignedFact
from swarm.identity import NodeKey, issue
from swarm.messages import Step, TopLogits
from swarm.rpc import Dialer, RpcServer
from swarm.terms import Address, Profile, Span
from swarm.torrent import Magnet

PROFILE = Profile("bf16")
FIRST_TEXT_ID = 1000
"""Of the embedded release. Ids below are control tokens and single bytes: one of them could end an answer."""


@dataclass(frozen=True, slots=True)
class WaitingArgs:
    n_layers: int


@dataclass(slots=True)
class WaitingSession:
    n_top: int
    cached_positions: int = 0

    def on_evicted(self, epoch: int, tell: Callable[[], None]) -> None:
        """It never is."""


class WaitingStage:
    """Stands in for a Stage, for the handler of sessions alone."""

    def __init__(self, n_layers: int, step_s: float) -> None:
        self.args = WaitingArgs(n_layers)
        self._step_s = step_s

    def open(
        self, key: object, epoch: int, span: Span, max_positions: int, n_top: int, *rest: object
    ) -> WaitingSession:
        """Nothing is found cached: every row is sent."""
        return WaitingSession(n_top)

    def abandon(self, session: WaitingSession, epoch: int) -> bool:
        """Nothing is kept for a later epoch."""
        return False

    def close_epoch(self, session: WaitingSession, epoch: int) -> None:
        """Nothing is held."""

    async def step(self, session: WaitingSession, step: Step) -> StepOutput:
        await asyncio.sleep(self._step_s)
        assert isinstance(step.payload, tuple)  # of the first hop, which is the last: token ids
        rows = tuple(logits_at(step.position, session.n_top) for _ in range(step.n_logit_rows))
        return StepOutput(rows, step.position + len(step.payload), 0.0, self._step_s)


@functools.lru_cache(maxsize=256)
def logits_at(position: int, n_top: int) -> TopLogits:
    """The n_top likeliest of as many: flat enough that seeds differ."""
    values = tuple(-0.01 * i for i in range(n_top))
    ids = tuple(FIRST_TEXT_ID + (i + 7 * position) % n_top for i in range(n_top))
    return TopLogits(ids, values, math.log(math.fsum(map(math.exp, values))))


async def main(magnet: str, n_layers: int, step_s: float) -> None:
    release, key, network = Magnet.parse(magnet).infohash, NodeKey.generate(), NetworkConfig.named("loopback", ())
    dialer = Dialer(issue(key), network.rpc)
    address = Address("127.0.0.1", 0)

    def own() -> SignedFact:
        return sign_fact(
            key,
            NodeFact(
                key.node_id, release, address, seq=int(1000 * time.time()), issued_at_s=time.time(),
                ttl_s=network.discovery.fact_ttl_s, state=NodeState.SERVING, spans=(Span(0, n_layers),),
                profile=PROFILE, n_layers=n_layers, free_sessions=64, version=__version__,
            ),
        )  # fmt: skip

    discovery = Discovery(release, RpcFactsPort(dialer), network.discovery, own=own)
    stage = cast(Stage, WaitingStage(n_layers, step_s))
    sessions: Any = SessionHandler(key.node_id, release, PROFILE, stage, dialer)
    server = RpcServer(
        issue(key), network.rpc, stage=sessions, node=FactsHandler(discovery, own, DialBack(dialer, own))
    )
    address = await server.start(address)
    server.set_serving(True)
    print(json.dumps({"event": "listening", "address": str(address)}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) / 1000))
