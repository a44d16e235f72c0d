"""attention: one 8x7B layer's attention by itself, bf16, one thread, against torch's scaled_dot_product_attention."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.figures import Figure, Measure, faster, take_turns
from benchmarks.memory_read import MemoryRead
from benchmarks.models import LAYER_8X7B as ARGS
from node.model import Chunk, KVCache
from node.model.attention import attend
from node.model.batch import Batch
from node.model.rope import RopeTable
from swarm.terms import Span

BENCH = "attention"
OURS, SDPA, LIMIT = "ours", "torch sdpa", "memory read"
_SHAPES = {
    f"{n_rows} row{'s' if n_rows > 1 else ''} behind {n_cached}": (n_rows, n_cached)
    for n_rows, n_cached in ((1, 512), (1, 4096), (1, 32768), (512, 0), (512, 3584))
}
"""(rows, positions cached before them): decode, and prompts."""
CASES = tuple(_SHAPES)
DEFAULT_ROUNDS = 9


def run(work_dir: Path, n_rounds: int, cases: Sequence[str]) -> list[Figure]:
    torch.set_num_threads(1)
    return asyncio.run(_measure(n_rounds, cases))


@torch.inference_mode()
async def _measure(n_rounds: int, cases: Sequence[str]) -> list[Figure]:
    figures: list[Figure] = []
    memory = MemoryRead(1 << 28)
    rope = RopeTable(ARGS.head_dim, ARGS.rope_theta, "cpu")
    for case in cases:
        n_rows, n_cached = _SHAPES[case]
        n_keys = n_cached + n_rows
        xq = torch.randn(n_rows, ARGS.n_heads, ARGS.head_dim).bfloat16() * ARGS.head_dim**-0.5
        keys, values = torch.randn(2, ARGS.n_kv_heads, n_keys, ARGS.head_dim).bfloat16()
        cache = KVCache(ARGS, Span(0, 1), dtype=torch.bfloat16, device="cpu")
        cache.prepare(n_keys)
        cache.layer(0).write(0, keys, values)
        cache.advance(n_cached)
        chunk = Chunk(cache, n_rows)
        batch = Batch([chunk], rope, ARGS.head_dim, torch.bfloat16)

        def ours(xq: Tensor = xq, batch: Batch = batch, chunk: Chunk = chunk) -> None:
            attend(xq, batch, chunk, chunk.cache.layer(0))

        hidden = torch.ones(n_rows, n_keys, dtype=torch.bool).triu(n_cached + 1) if n_rows > 1 else None
        mask = None if hidden is None else torch.zeros(n_rows, n_keys).masked_fill_(hidden, -torch.inf).bfloat16()

        def sdpa(xq: Tensor = xq, keys: Tensor = keys, values: Tensor = values, mask: Tensor | None = mask) -> None:
            F.scaled_dot_product_attention(
                xq.transpose(0, 1)[None], keys[None], values[None], attn_mask=mask, scale=1.0, enable_gqa=True
            )

        n_bytes = keys.nbytes + values.nbytes
        contestants: dict[str, Measure] = {OURS: partial(_rate, ours), SDPA: partial(_rate, sdpa)}
        if n_rows == 1:
            contestants[LIMIT] = partial(memory.tokens_per_s, n_bytes)
        rounds = await take_turns(contestants, n_rounds)
        figures += [
            faster(BENCH, case, "calls/s", rounds[OURS], peer, rounds[peer]) for peer in contestants if peer != OURS
        ]
    return figures


async def _rate(call: Callable[[], None]) -> float:
    """Calls a second, of the median of a few."""
    times = []
    for _ in range(5):
        started_s = time.perf_counter()
        call()
        times.append(time.perf_counter() - started_s)
    return 1 / statistics.median(times)
