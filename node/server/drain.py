"""A node's farewell: its sessions end by themselves, or are told to go on elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from node.server.door import AWAY_S, Door
from node.stage import Stage
from swarm.errors import StageFull

HAND_OVER_S = 3.0
"""How long the last words of sessions that are handed over may take to reach their clients."""

LOOK_S = 0.02


async def drain(
    door: Door,
    stage: Stage,
    timeout_s: float,
    hand_over: asyncio.Event,
    on_hand_over: Callable[[int], None],
) -> None:
    """Take no new sessions; return when none is left.

    Those that run have timeout_s, or until hand_over is set. Then their clients are told that this node leaves: each
    replays its tokens on a route without it. on_hand_over: called with how many those are.
    """
    door.is_closing = True
    deadline_s = time.monotonic() + timeout_s
    while stage.n_sessions and time.monotonic() < deadline_s and not hand_over.is_set():
        await asyncio.sleep(LOOK_S)
    if stage.n_sessions:
        on_hand_over(stage.n_sessions)
        stage.hand_over(StageFull("this node is leaving; other nodes go on with the session", retry_after_s=AWAY_S))
    deadline_s = time.monotonic() + HAND_OVER_S
    while door.n_running and time.monotonic() < deadline_s:
        await asyncio.sleep(LOOK_S)
