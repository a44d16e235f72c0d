"""Parts of the benches' models, in this process or served by one of their own: layers, trunks, experts.

Weights are made where they are needed, the same everywhere: nothing is written, nothing fetched.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from benchmarks.models import LAYER_8X7B, MIXTRAL_1B5, pooled_tensors
from node.experts import ExpertHost
from node.hosting import Holding
from node.model import Elsewhere, ExpertStore, Numerics, SpanModel
from node.server import Door, ExpertsHandler, SessionHandler
from node.stage import Stage, StageConfig
from swarm.cli.release_plan import parse_experts
from swarm.facts import NodeFact, NodeState
from swarm.identity import NodeKey, issue
from swarm.release import ModelArgs
from swarm.rpc import Dialer, RpcConfig, RpcServer
from swarm.terms import Address, Infohash, NodeId, Profile, Span, merge_experts

MODELS = {"mixtral-1b5": MIXTRAL_1B5, "8x7b-layer": LAYER_8X7B}
RELEASE = Infohash("0" * 40)
PROFILE = Profile("bf16")
NUMERICS = Numerics(is_exact=True)


def load_parts(
    args: ModelArgs, holding: Holding, elsewhere: Elsewhere | None = None
) -> tuple[dict[Span, SpanModel], ExpertStore]:
    """What is held, in the exact profile. Memory: that, and the pool that values are cut from."""
    store = ExpertStore(args, NUMERICS)
    models = {
        span: SpanModel(args, span, NUMERICS, trunks=holding.trunks, experts=store, elsewhere=elsewhere)
        for span in holding.stages
    }
    ends: dict[str, Tensor] = {}
    for layer_idx, tensors in _by_layer(args, holding):
        if layer_idx is None:
            ends |= tensors
            continue
        for expert in (expert for expert in holding.experts if expert.layer_idx == layer_idx):
            store.load(expert, tensors, f"feed_forward.experts.{expert.expert_idx}.")
        for span, model in models.items():
            if layer_idx in span:
                model.load_layer(layer_idx, tensors)
    for span, model in models.items():
        if span.start == 0 and "tok_embeddings.weight" in ends:
            model.load_embeddings(ends["tok_embeddings.weight"])
        if span.end == args.n_layers and "output.weight" in ends:
            model.load_head(ends["norm.weight"], ends["output.weight"])
    return models, store


def _by_layer(args: ModelArgs, holding: Holding) -> Iterator[tuple[int | None, dict[str, Tensor]]]:
    """The tensors of each layer that are held, without 'layers.N.'; those of neither layer under None."""

    def layer_of(entry: tuple[str, Tensor]) -> int | None:
        found = re.match(r"layers\.(\d+)\.", entry[0])
        return int(found[1]) if found else None

    wanted = {name for name in _names(args) if _is_held(name, args, holding)}
    for layer_idx, entries in itertools.groupby(pooled_tensors(args, wanted), layer_of):
        yield layer_idx, {name.removeprefix(f"layers.{layer_idx}."): tensor for name, tensor in entries}


def _names(args: ModelArgs) -> Sequence[str]:
    from swarm.release import all_shapes

    return tuple(all_shapes(args))


def _is_held(name: str, args: ModelArgs, holding: Holding) -> bool:
    found = re.match(r"layers\.(\d+)\.(?:feed_forward\.experts\.(\d+)\.)?", name)
    if found is None:
        is_head = name in ("norm.weight", "output.weight")
        end = args.n_layers - 1 if is_head else 0
        return any(end in span for span in holding.stages)
    layer_idx = int(found[1])
    if any(layer_idx in span for span in holding.spans):
        return True
    if found[2] is None:
        return any(layer_idx in span for span in holding.trunks)
    return any(expert.layer_idx == layer_idx and expert.expert_idx == int(found[2]) for expert in holding.experts)


@dataclass(frozen=True, slots=True)
class Part:
    """A process that serves a part of a model: told() is what it would say of itself."""

    node_id: NodeId
    address: Address
    holding: Holding
    process: subprocess.Popen[str]

    def told(self, address: Address, args: ModelArgs) -> NodeFact:
        """Its fact, with the address under which it is to be dialled."""
        return NodeFact(
            node_id=self.node_id,
            release=RELEASE,
            address=address,
            seq=1,
            issued_at_s=time.time(),
            ttl_s=1e6,
            state=NodeState.SERVING,
            spans=self.holding.spans,
            profile=PROFILE,
            n_layers=args.n_layers,
            experts=merge_experts(self.holding.experts),
            n_experts=args.n_experts,
        )


class Parts:
    """A context manager: processes of one thread each, for `layers START:END` or `experts LAYER:EXPERT,…`."""

    def __init__(self, model: str, wanted: Sequence[str]) -> None:
        commands = [[sys.executable, "-m", "benchmarks.parts", model, *words.split()] for words in wanted]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for command in commands
        ]
        self._wanted = wanted
        self._args = MODELS[model]

    def __enter__(self) -> list[Part]:
        try:
            return [self._part(*started) for started in zip(self._processes, self._wanted, strict=True)]
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()

    def _part(self, process: subprocess.Popen[str], words: str) -> Part:
        assert process.stdout is not None
        ready: dict[str, Any] = json.loads(process.stdout.readline())
        address = Address.parse(ready["address"])
        return Part(NodeId(ready["node_id"]), address, holding_of(self._args, words), process)


def holding_of(args: ModelArgs, words: str) -> Holding:
    kind, text = words.split()
    if kind == "experts":
        return Holding.of(args, (), (), parse_experts(text))
    span = (Span.parse(text),)
    return Holding.of(args, span, (), ()) if kind == "layers" else Holding.of(args, (), span, ())


async def _serve(model: str, words: str) -> None:
    args = MODELS[model]
    models, store = load_parts(args, holding_of(args, words))
    tls = issue(NodeKey.generate())
    config = RpcConfig.loopback()
    async with Dialer(tls, config) as dialer:
        door = Door()
        if models:
            stage = Stage(args, models, StageConfig(cache_budget_bytes=1 << 30), torch.device("cpu"))
            door.sessions = SessionHandler(tls.node_id, RELEASE, PROFILE, stage, dialer)
        experts = ExpertsHandler(tls.node_id, RELEASE, PROFILE, ExpertHost(store))
        server = RpcServer(tls, config, stage=door, experts=experts)
        address = await server.start(Address("127.0.0.1", 0))
        print(json.dumps({"node_id": tls.node_id, "address": str(address)}), flush=True)
        await asyncio.to_thread(sys.stdin.read)  # until whoever started it is gone


if __name__ == "__main__":
    torch.set_num_threads(1)
    asyncio.run(_serve(sys.argv[1], " ".join(sys.argv[2:])))
