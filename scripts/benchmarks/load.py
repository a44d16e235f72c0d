"""load: what it takes to have a model ready and to serve from it: read and packed weights, memory, shared prefixes.

Memory is measured in a child process of its own, as the kernel counts it.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from benchmarks.engine import CHUNK_ROWS
from benchmarks.figures import Figure, faster
from benchmarks.models import MIXTRAL_1B5, prompts_of, write_model
from benchmarks.one_process import load_model
from node.model import PAGE
from node.stage import Prefix, Stage, StageConfig, StageSession
from swarm.embedded import release_folder
from swarm.messages import Step
from swarm.pages import page_hashes
from swarm.terms import NodeId, SessionId, Span

BENCH = "load"
BUDGET_BYTES = 256 << 20
N_SESSIONS = 1000
SESSION_TOKENS = 200
COMMON_TOKENS = 2048
SPARE_BYTES = 600 << 20
"""What a node may take beside its weights and its KV budget: torch, gRPC, libtorrent, Python."""
_LOADING, _SERVING, _THOUSAND = "reading and packing", "serving and prefixes", "a thousand sessions"
CASES = (_LOADING, _SERVING, _THOUSAND)
DEFAULT_ROUNDS = 3


def run(work_dir: Path, n_rounds: int, cases: Sequence[str]) -> list[Figure]:
    torch.set_num_threads(1)
    folder = work_dir / "model"
    write_model(MIXTRAL_1B5, folder)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    figures = _loading(folder, size, n_rounds) if _LOADING in cases else []
    command = [sys.executable, "-m", "benchmarks.load", str(folder), str(size), *cases]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800).stdout
    for line in answer.splitlines():
        case, value, unit, peer, peer_value, ratio = line.split("\t")
        figures.append(Figure(BENCH, case, float(value), unit, peer, float(peer_value), float(ratio)))
    return figures


def _loading(folder: Path, size: int, n_rounds: int) -> list[Figure]:
    """Read and pack, against reading the same files; and what of it is computing, all that a packed form on disk could
    save: the rest is the kernel's, which reads files and clears memory whatever their form.
    """
    walls: dict[str, list[float]] = {"": [], "int8": [], "int4": []}
    computing: dict[str, list[float]] = {quantisation: [] for quantisation in walls}
    reads: list[float] = []
    for _ in range(n_rounds):
        started_s = time.perf_counter()
        for path in sorted(folder.glob("*.safetensors")):
            with path.open("rb", buffering=0) as file:
                while file.read(1 << 24):
                    pass
        reads.append(size / (time.perf_counter() - started_s) / 1e9)
        for quantisation in walls:
            started_s, computed_s = time.perf_counter(), os.times().user
            load_model(folder, "bf16", quantisation)
            walls[quantisation].append(size / (time.perf_counter() - started_s) / 1e9)
            computing[quantisation].append(os.times().user - computed_s)
    figures = []
    for quantisation, rates in walls.items():
        case = f"a 1.5e9 Mixtral, read and packed, {quantisation or 'bf16'}"
        figures.append(faster(BENCH, case, "GB/s", rates, "read() of its files", reads))
        figures.append(Figure(BENCH, f"{case}: computing", statistics.median(computing[quantisation]), "s"))
    return figures


def child(folder: Path, size: int, cases: Sequence[str]) -> None:
    """Print figures of memory and of prefixes, a line each."""
    torch.set_num_threads(1)
    config = StageConfig(cache_budget_bytes=BUDGET_BYTES)
    process = psutil.Process(os.getpid())
    if _SERVING in cases:
        _serve(folder, size, config, process)
    if _THOUSAND in cases:
        _thousand_sessions(config, process)


def _serve(folder: Path, size: int, config: StageConfig, process: psutil.Process) -> None:
    model = load_model(folder, "bf16", is_exact=True)
    _print(
        "peak memory while loading",
        _peak_bytes(),
        size + (128 << 20) + SPARE_BYTES,
        "bytes",
        "weights + a tensor + 600 MiB",
    )
    stage = Stage(model.args, {model.span: model}, config, torch.device("cpu"))
    asyncio.run(_prefix(stage))
    serving = asyncio.run(_sessions(stage, 8, process))
    _print(
        "memory while serving",
        serving,
        int(1.05 * (size + BUDGET_BYTES)) + SPARE_BYTES,
        "bytes",
        "1.05 (weights + KV) + 600 MiB",
    )
    stage.shut_down()


def _thousand_sessions(config: StageConfig, process: psutil.Process) -> None:
    """On the embedded release, whose tokens are quick: what a session leaves behind does not depend on the model."""
    model = load_model(release_folder(), "bf16", is_exact=True)
    stage = Stage(model.args, {model.span: model}, config, torch.device("cpu"))
    early = asyncio.run(_sessions(stage, N_SESSIONS // 10, process))
    late = asyncio.run(_sessions(stage, N_SESSIONS - N_SESSIONS // 10, process))
    case = f"memory after {N_SESSIONS * SESSION_TOKENS} tokens of {N_SESSIONS} sessions"
    _print(case, late, early, "bytes", "after a tenth of them")
    stage.shut_down()


async def _sessions(stage: Stage, n_sessions: int, process: psutil.Process) -> int:
    """Resident bytes after so many sessions: prompts of SESSION_TOKENS, a few at a time."""
    slots = asyncio.Semaphore(4)

    async def one(number: int) -> None:
        async with slots:
            session = _open(stage, f"{os.getpid()}-{number}", SESSION_TOKENS)
            ids = tuple((number * 31 + i * 7) % 1990 + 3 for i in range(SESSION_TOKENS))
            await stage.step(session, Step(1, 0, ids[:-2], 0))
            for position in range(SESSION_TOKENS - 2, SESSION_TOKENS):
                await stage.step(session, Step(1, position, ids[position : position + 1], 1))
            stage.close(session)

    await asyncio.gather(*map(one, range(n_sessions)))
    return process.memory_info().rss


async def _prefix(stage: Stage) -> None:
    """First token of a prompt whose first COMMON_TOKENS another session had, against that other session's."""
    common, tail = prompts_of(1, COMMON_TOKENS, MIXTRAL_1B5.vocab_size)[0], [5, 6, 7, 8]
    held = []
    times = []
    for name in ("first", "second"):
        ids = (*common, *tail, len(name))
        hashes = page_hashes(ids)
        started_s = time.perf_counter()
        session = _open(stage, name, len(ids) + 8, Prefix(b"bench", hashes))
        position = session.cached_positions
        while position < len(ids):
            rows = ids[position : position + CHUNK_ROWS]
            filled = hashes[position // PAGE : (position + len(rows)) // PAGE]
            await stage.step(
                session, Step(1, position, rows, int(position + len(rows) == len(ids)), page_hashes=filled)
            )
            position += len(rows)
        times.append(time.perf_counter() - started_s)
        held.append(stage.cache_bytes)
        stage.close(session)
    case = f"first token behind a common prefix of {COMMON_TOKENS}"
    print(f"{case}\t{times[1]}\ts\tthe first session's\t{times[0]}\t{times[0] / times[1]}")
    _print("KV memory with two sessions of that prefix", held[1], held[0], "bytes", "with the first alone")


def _open(stage: Stage, name: str, max_positions: int, prefix: Prefix | None = None) -> StageSession:
    key = (NodeId(""), SessionId(name), 0)
    return stage.open(key, 1, Span(0, stage.args.n_layers), max_positions, 1, prefix)


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def _print(case: str, ours: int, bound: int, unit: str, peer: str) -> None:
    print(f"{case}\t{ours}\t{unit}\t{peer}\t{bound}\t{bound / ours}")


if __name__ == "__main__":
    child(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
