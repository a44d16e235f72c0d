"""pipeline: what it costs, and brings, to put a model's layers on several nodes.

The peer is one process with the very same model, stage and sampler and no network. One sequence cannot gain by a
pipeline, only lose what its hops add; several in flight keep its stages busy at once, as many as there are cores.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from benchmarks.figures import Figure, Measure, faster, take_turns
from benchmarks.one_process import OneProcess, prompt_of
from benchmarks.processes import Processes, RunningNode, serving
from node.weights import write_preset
from swarm.cli.local_swarm import split_layers
from swarm.client.generation import TokenLoop
from swarm.client.journal import Journal
from swarm.client.network import NetworkConfig
from swarm.client.session import CHUNK_TOKENS, RouteSession
from swarm.client.values import ClientRelease
from swarm.facts import Hop, Route
from swarm.identity import NodeKey, issue
from swarm.messages import Open
from swarm.release import read_folder_layout
from swarm.rpc import Dialer
from swarm.sampling import SamplingParams
from swarm.terms import Infohash, NodeId, Profile, SessionId
from swarm.tokenizer import load_tokenizer
from swarm.torrent import Magnet

BENCH = "pipeline"
PEER = "one process, no network"
N_NODES = (1, 2, 3)
N_SEQUENCES = (1, 2, 4)
PROMPT_TOKENS = 16
TURN_TOKENS = 8
"""Tokens of each sequence in one turn: long enough to fill a pipeline, short enough for many turns."""

PREFILL_TOKENS = 512
DEFAULT_ROUNDS = 12


def run(work_dir: Path, n_rounds: int) -> list[Figure]:
    """Figures for fp32 and bf16, one compute thread a process."""
    torch.set_num_threads(1)
    folder = work_dir / "demo"
    write_preset("demo", folder)
    figures: list[Figure] = []
    with Processes(work_dir) as processes:
        seeder, magnet = processes.seed(folder)
        for dtype in ("fp32", "bf16"):
            # Every node hosts the whole model, so that routes over one, two and three of them can take turns.
            whole = f"0:{read_folder_layout(folder).args.n_layers}"
            with serving(processes, magnet, [whole] * max(N_NODES), dtype) as nodes:
                figures += asyncio.run(_measure(folder, Magnet.parse(magnet).infohash, dtype, nodes, n_rounds))
        processes.stop(seeder)
    return figures


async def _measure(
    folder: Path, infohash: Infohash, dtype: str, nodes: list[RunningNode], n_rounds: int
) -> list[Figure]:
    peer = OneProcess(folder, dtype)
    figures: list[Figure] = []
    try:
        async with Guest(folder, infohash, dtype, nodes) as guest:
            for n_sequences in N_SEQUENCES:
                figures += await _decode(guest, peer, n_sequences, n_rounds)
            figures += await _prefill(guest, peer, n_rounds)
    finally:
        peer.close()
    return figures


async def _decode(guest: Guest, peer: OneProcess, n_sequences: int, n_rounds: int) -> list[Figure]:
    prompt = prompt_of(PROMPT_TOKENS, peer.args.vocab_size)
    n_tokens = TURN_TOKENS * (n_rounds + 1) + 1
    teams = {PEER: Team([peer.generate(prompt, n_tokens) for _ in range(n_sequences)])}
    for n_nodes in N_NODES:
        teams[str(n_nodes)] = Team([guest.generate(prompt, n_tokens, n_nodes) for _ in range(n_sequences)])
    try:
        rounds = await take_turns({name: team.turn for name, team in teams.items()}, n_rounds)
    finally:
        for team in teams.values():
            await team.close()
    figures: list[Figure] = []
    for n_nodes in N_NODES:
        case = f"decode {guest.dtype}, {_nodes(n_nodes)}, {n_sequences} in flight"
        figures.append(faster(BENCH, case, "tok/s", rounds[str(n_nodes)], PEER, rounds[PEER]))
        if n_sequences == 1:
            added_ms = [
                (1000 / a - 1000 / b) / n_nodes for a, b in zip(rounds[str(n_nodes)], rounds[PEER], strict=True)
            ]
            case = f"added by each hop {guest.dtype}, {_nodes(n_nodes)}"
            figures.append(Figure(BENCH, case, statistics.median(added_ms), "ms/token"))
    return figures


async def _prefill(guest: Guest, peer: OneProcess, n_rounds: int) -> list[Figure]:
    prompt = prompt_of(PREFILL_TOKENS, peer.args.vocab_size)
    contestants: dict[str, Measure] = {PEER: partial(peer.prefill, prompt)}
    contestants |= {str(n_nodes): partial(guest.prefill, prompt, n_nodes) for n_nodes in N_NODES}
    rounds = await take_turns(contestants, max(3, n_rounds // 2))
    return [
        faster(
            BENCH, f"prefill {PREFILL_TOKENS} {guest.dtype}, {_nodes(n)}", "tok/s", rounds[str(n)], PEER, rounds[PEER]
        )
        for n in N_NODES
    ]


class Team:
    """Sequences that decode side by side, a turn at a time."""

    def __init__(self, sequences: Sequence[AsyncGenerator[object, None]]) -> None:
        self._sequences = sequences
        self._has_begun = False

    async def turn(self) -> float:
        """Tokens/s of all sequences together over the next TURN_TOKENS of each. The prompt's own token is not timed."""
        if not self._has_begun:
            await asyncio.gather(*map(anext, self._sequences))
            self._has_begun = True
        started_s = time.perf_counter()
        await asyncio.gather(*map(_take, self._sequences))
        return len(self._sequences) * TURN_TOKENS / (time.perf_counter() - started_s)

    async def close(self) -> None:
        for sequence in self._sequences:
            await sequence.aclose()


class Guest:
    """A client that walks the routes it is told, over the nodes that it is told of."""

    def __init__(self, folder: Path, infohash: Infohash, dtype: str, nodes: list[RunningNode]) -> None:
        layout = read_folder_layout(folder)
        assert layout.tokenizer_file is not None
        self.dtype = dtype
        self._release = ClientRelease("demo", infohash, layout.args, load_tokenizer(folder / layout.tokenizer_file))
        self._nodes = nodes
        self._tls = issue(NodeKey.generate())
        self._dialer = Dialer(self._tls, NetworkConfig.named("loopback").rpc)

    async def __aenter__(self) -> Guest:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._dialer.close()

    def generate(self, prompt: list[int], n_tokens: int, n_nodes: int) -> AsyncGenerator[object, None]:
        """The client's own token loop: sampling, text and journal included."""
        params = SamplingParams(max_tokens=n_tokens, temperature=0.0, ignore_eos=True)
        journal = Journal.create(self._release.infohash, prompt, params, None, continues=True)
        finder: Any = _Known(self._route(n_nodes))
        return TokenLoop(self._release, self._dialer, self._tls.node_id, finder, journal).events()

    async def prefill(self, prompt: list[int], n_nodes: int) -> float:
        """Prompt tokens/s on an open route, to the prompt's last logits."""
        route = self._route(n_nodes)
        opening = Open(
            session_id=SessionId(os.urandom(16).hex()),
            epoch=1,
            release=self._release.infohash,
            client_id=self._tls.node_id,
            hops=route.hops,
            hop_idx=0,
            profile=route.profile,
            max_positions=len(prompt),
            n_top=1,
        )
        chunks = [prompt[i : i + CHUNK_TOKENS] for i in range(0, len(prompt), CHUNK_TOKENS)]
        async with RouteSession(self._dialer, opening) as session:
            started_s = time.perf_counter()
            await session.step(chunks, 0)
            return len(prompt) / (time.perf_counter() - started_s)

    def _route(self, n_nodes: int) -> Route:
        spans = split_layers(self._release.args.n_layers, n_nodes)
        hops = (Hop(node.node_id, node.address, span) for node, span in zip(self._nodes, spans, strict=False))
        return Route(tuple(hops), Profile(self.dtype))


class _Known:
    """A route finder that has found it already."""

    def __init__(self, route: Route) -> None:
        self._route = route

    async def find(self, profile: Profile | None, broken: Route | None = None) -> Route:
        return self._route

    def learn(self, route: Route, step_s: float) -> None:
        pass  # there is no other

    def could_spare(self, node_id: NodeId, route: Route) -> bool:
        return False

    def avoid(self, node_ids: Sequence[NodeId], error: Exception) -> None:
        raise error  # a run in which a node fails has no figures


async def _take(sequence: AsyncGenerator[object, None]) -> None:
    for _ in range(TURN_TOKENS):
        await anext(sequence)


def _nodes(n_nodes: int) -> str:
    return f"{n_nodes} node{'s' if n_nodes > 1 else ''}"
