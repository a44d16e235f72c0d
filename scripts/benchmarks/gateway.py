"""gateway: what the HTTP front door costs, on the way of every token and on the way to the first.

The peer is the Python client in the gateway's place: a process of its own with the same release, over the same nodes.
Both stream the same prompts with the same seeds, 1, 8 and 32 at once, in short turns that alternate. In a turn all
streams begin at one moment, which shows how a rush is taken; each then asks once more, at moments that are spread over
the turn, which shows what somebody who joins the others waits for. What asks and counts is a process for itself.

Over two swarms. "Elsewhere": the nodes have machines of their own, as in a swarm they have, and a token takes
ELSEWHERE_MS (`elsewhere` stands in for them); what is added to a wait can be told to the millisecond. "Here": the
embedded release on three nodes that share this machine's cores with the door and keep them busy, so that whatever a
door uses of the processor is missing elsewhere: there throughput is a matter of what all processes together use per
token, which a load from outside does not change much, and waits are a matter of who is ahead in the queue for a core.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.figures import Figure, faster, take_turns
from benchmarks.processes import Processes, serving
from benchmarks.streams import START_TIMEOUT_S, Door, Turn, take_turn, until_ready
from swarm.cli.local_swarm import split_layers
from swarm.cli.processes import Child, stop_all
from swarm.embedded import NAME, release_folder
from swarm.release import read_folder_layout

BENCH = "gateway"
PEER = "the Python client"
Load = tuple[int, int, int]
"""(streams at once, tokens of each, turns to a round): a turn of one stream is short, and takes more of them."""
ELSEWHERE_MS = 100.0
ELSEWHERE: tuple[Load, ...] = ((1, 24, 1), (8, 28, 1), (32, 28, 1))
HERE: tuple[Load, ...] = ((1, 64, 3), (8, 48, 1), (32, 32, 1))
N_NODES = 3
DEFAULT_ROUNDS = 4


def run(work_dir: Path, n_rounds: int) -> list[Figure]:
    folder = Path(shutil.copytree(release_folder(), work_dir / NAME))  # seeding leaves a .torrent beside it
    n_layers = read_folder_layout(folder).args.n_layers
    with Processes(work_dir) as processes:
        _, magnet = processes.seed(folder)
        with _elsewhere(work_dir, magnet, n_layers) as (peers, pids), _doors(work_dir, magnet, pids, peers) as doors:
            figures = asyncio.run(_measure("elsewhere", doors, ELSEWHERE, n_rounds))
        spans = [str(span) for span in split_layers(n_layers, N_NODES)]
        with serving(processes, magnet, spans, "bf16") as nodes:
            pids = tuple(node.child.pid for node in nodes)
            with _doors(work_dir, magnet, pids) as doors:
                return figures + asyncio.run(_measure("here", doors, HERE, n_rounds))


@contextlib.contextmanager
def _elsewhere(work_dir: Path, magnet: str, n_layers: int) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
    """The stand-in for a swarm of other machines: (where to find it, its process)."""
    arguments = (magnet, str(n_layers), str(ELSEWHERE_MS))
    child = Child("elsewhere", arguments, work_dir / "elsewhere.log", module="benchmarks.elsewhere")
    try:
        yield (str(child.wait_for("listening", START_TIMEOUT_S)["address"]),), (child.pid,)
    finally:
        stop_all([child])


@contextlib.contextmanager
def _doors(
    work_dir: Path, magnet: str, behind: tuple[int, ...], peers: tuple[str, ...] = ()
) -> Iterator[dict[str, Door]]:
    """The gateway and its peer, side by side, by their names."""
    where = ("--network", "loopback", "--listen", "127.0.0.1:0", "--json", *(f"--peer={peer}" for peer in peers))
    children = {
        BENCH: Child(
            "gateway",
            ("gateway", magnet, *where, "--no-ledger", "--data-dir", str(work_dir / "gateway")),
            work_dir / "gateway.log",
        ),
        PEER: Child(
            "peer", (magnet, str(work_dir / "peer"), *peers), work_dir / "peer.log", module="benchmarks.gateway_peer"
        ),
    }
    try:
        yield {
            name: Door(child.pid, str(child.wait_for("listening", START_TIMEOUT_S)["url"]), NAME, behind)
            for name, child in children.items()
        }
    finally:
        stop_all(list(children.values()))


async def _measure(where: str, doors: dict[str, Door], loads: Sequence[Load], n_rounds: int) -> list[Figure]:
    await until_ready(doors[BENCH])
    figures: list[Figure] = []
    for n_streams, n_tokens, n_turns in loads:
        turns: dict[str, list[Turn]] = {name: [] for name in doors}

        async def turn(name: str, load: tuple[int, int], turns: dict[str, list[Turn]]) -> float:
            turns[name].append(await take_turn(doors[name], *load))
            return turns[name][-1].tokens_per_s

        contestants = {name: partial(turn, name, (n_streams, n_tokens), turns) for name in doors}
        rounds = await take_turns(contestants, n_rounds * n_turns)
        if turns[BENCH][-1].n_tokens != turns[PEER][-1].n_tokens:
            raise RuntimeError("the gateway and the client gave answers of different lengths to the same seeds")
        case = f"{where}, {n_streams} stream{'s' if n_streams > 1 else ''}"
        figures += _figures(case, rounds, {name: took[1:] for name, took in turns.items()})
    return figures


def _figures(case: str, rounds: dict[str, list[float]], turns: dict[str, list[Turn]]) -> list[Figure]:
    ours, peers = turns[BENCH], turns[PEER]
    return [
        faster(BENCH, case, "tok/s", rounds[BENCH], PEER, rounds[PEER]),
        _added("first token added, joining", case, ours, peers, lambda turn: turn.joined_s),
        _added("first token added, together", case, ours, peers, lambda turn: turn.first_token_s),
        _latency("first token, joining", case, ours, peers, lambda turn: turn.joined_s, 0.5),
        _latency("first token, together", case, ours, peers, lambda turn: turn.first_token_s, 0.5),
        _latency("between tokens, p50", case, ours, peers, lambda turn: turn.gaps_s, 0.5),
        _latency("between tokens, p99", case, ours, peers, lambda turn: turn.gaps_s, 0.99),
        _cpu("processor time per token", case, ours, peers, lambda turn: turn.door_ms),
        _cpu("of all processes", case, ours, peers, lambda turn: turn.all_ms),
    ]


Seconds = Callable[[Turn], list[float]]


def _added(what: str, case: str, ours: Sequence[Turn], peers: Sequence[Turn], seconds: Seconds) -> Figure:
    """The median over the turns of the difference of their medians: load drifts between them."""
    added_s = statistics.median(
        statistics.median(seconds(a)) - statistics.median(seconds(b)) for a, b in zip(ours, peers, strict=True)
    )
    return Figure(BENCH, f"{case}: {what}", 1000 * added_s, "ms")


def _latency(
    what: str, case: str, ours: Sequence[Turn], peers: Sequence[Turn], seconds: Seconds, share: float
) -> Figure:
    """Of all turns together, in ms; a ratio above 1 is quicker than the peer."""
    value, peer = (1000 * _quantile([s for turn in turns for s in seconds(turn)], share) for turns in (ours, peers))
    return Figure(BENCH, f"{case}: {what}", value, "ms", PEER, peer, peer / value)


def _cpu(what: str, case: str, ours: Sequence[Turn], peers: Sequence[Turn], cpu_ms: Callable[[Turn], float]) -> Figure:
    """The means of all turns: the clock that counts it ticks a hundred times a second."""
    value, peer = (statistics.mean(map(cpu_ms, turns)) for turns in (ours, peers))
    return Figure(BENCH, f"{case}: {what}", value, "ms", PEER, peer, peer / value)


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
