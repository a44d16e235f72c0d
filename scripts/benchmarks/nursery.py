"""Stages that may be killed: processes forked in milliseconds from one that has the weights loaded.

    python -m benchmarks.nursery FOLDER DTYPE [exact]

It says {"profile": …} once it is ready. A line of JSON on stdin, such as {"seed": 1, "crash": 0.001}, then bears a
stage that serves the whole model, and {"node_id": …, "address": …, "pid": …} says that it does. Stage, handlers and
gRPC are the node's own; torrents and discovery it has none. crash: the probability with which a step kills the process
instead of being computed; hang: that with which it blocks its event loop for good, while gRPC's own threads go on;
delay_s: how much longer each step takes once delays_after are done. They all end with this process, and it with its
stdin.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.one_process import load_model
from node.hosting import settle_profile
from node.model import SpanModel
from node.stage import Stage, StageConfig
from swarm.terms import Infohash, NodeId, Profile, Span

RELEASE = Infohash("ab" * 20)
PR_SET_PDEATHSIG = 1


def main(folder: Path, dtype: str, *options: str) -> None:
    torch.set_num_threads(1)
    model = load_model(folder, dtype, is_exact="exact" in options)
    profile = settle_profile(Profile(dtype), "exact" in options, model.args, torch.device("cpu"))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    print(json.dumps({"profile": str(profile)}), flush=True)
    for line in sys.stdin:
        if os.fork() == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            asyncio.run(live(model, profile, json.loads(line)))
            os._exit(0)


class CrashingStage(Stage):
    """A Stage whose process dies, or hangs, in the middle of a session, now and then."""

    crash = hang = delay_s = 0.0
    delays_after = 0
    n_steps = 0

    async def step(self, session: Any, step: Any) -> Any:
        if random.random() < self.crash:
            os.kill(os.getpid(), signal.SIGKILL)
        if random.random() < self.hang:
            time.sleep(3600.0)  # noqa: ASYNC251  that is the fault
        output = await super().step(session, step)
        self.n_steps += 1
        if self.n_steps <= self.delays_after or not self.delay_s:
            return output
        await asyncio.sleep(self.delay_s)
        return replace(output, compute_s=output.compute_s + self.delay_s)


async def live(model: SpanModel, profile: Profile, wish: dict[str, Any]) -> None:
    """Serve until killed."""
    from node.server import SessionHandler  # gRPC must not be there before the fork
    from swarm.identity import NodeKey, issue
    from swarm.rpc import Dialer, RpcConfig, RpcServer
    from swarm.terms import Address

    random.seed(wish.get("seed"))
    key = NodeKey.generate()
    config = RpcConfig.loopback()
    whole = Span(0, model.args.n_layers)
    stage = CrashingStage(model.args, {whole: model}, StageConfig(cache_budget_bytes=256 << 20), torch.device("cpu"))
    for fault in ("crash", "hang", "delay_s", "delays_after"):
        setattr(stage, fault, wish.get(fault, 0))
    dialer = Dialer(issue(key), config)
    handler = SessionHandler(NodeId(key.node_id), RELEASE, profile, stage, dialer)
    address = await RpcServer(issue(key), config, stage=handler).start(Address("127.0.0.1", 0))
    print(json.dumps({"node_id": key.node_id, "address": str(address), "pid": os.getpid()}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
