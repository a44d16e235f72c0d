"""Our engine as a node runs it, in this process: Stage, its sessions and its batches, without a network."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.one_process import load_model
from node.model import KVCache, Numerics, SpanModel
from node.stage import Stage, StageConfig, StageSession
from swarm.messages import Step, TopLogits
from swarm.release import ModelArgs
from swarm.terms import NodeId, SessionId, Span

CHUNK_ROWS = 512


class Engine:
    """A whole release in one Stage. close() ends its compute thread."""

    def __init__(self, folder: Path, *, is_exact: bool, quantisation: str = "", device: str = "cpu") -> None:
        self._begin(load_model(folder, "bf16", quantisation, is_exact=is_exact, device=device))

    @classmethod
    def of(cls, model: SpanModel) -> Engine:
        engine = cls.__new__(cls)
        engine._begin(model)
        return engine

    def _begin(self, model: SpanModel) -> None:
        self._model = model
        self._args = self._model.args
        config = StageConfig(cache_budget_bytes=4 << 30)
        self._stage = Stage(self._args, {self._model.span: self._model}, config, self._model.device)
        self._numbers = itertools.count()
        self._prompted: dict[tuple[int, int], list[tuple[StageSession, int]]] = {}  # by shape: sessions, next ids

    def close(self) -> None:
        self._stage.shut_down()

    async def decode(self, prompts: list[list[int]], n_tokens: int) -> float:
        """Tokens/s of all sequences together, greedily on from the prompts, which are of one length and not timed."""
        shape = len(prompts), len(prompts[0])
        if shape not in self._prompted:
            self._prompted[shape] = await asyncio.gather(*map(self._prompt, prompts))
        n_cached = len(prompts[0])

        async def sequence(session: StageSession, token: int) -> None:
            for position in range(n_cached, n_cached + n_tokens):
                token = await self._step(session, (token,), position)

        started_s = time.perf_counter()
        await asyncio.gather(*(sequence(session, token) for session, token in self._prompted[shape]))
        return n_tokens * len(prompts) / (time.perf_counter() - started_s)

    async def ids(self, prompt: list[int], n_tokens: int) -> list[int]:
        """Greedy ones."""
        session = self._open(len(prompt) + n_tokens)
        ids = [await self._step(session, tuple(prompt), 0)]
        while len(ids) < n_tokens:
            ids.append(await self._step(session, (ids[-1],), len(prompt) + len(ids) - 1))
        self._stage.close(session)
        return ids

    async def prefill(self, prompt: list[int]) -> float:
        """Prompt tokens/s, to the last token's logits."""
        session = self._open(len(prompt))
        started_s = time.perf_counter()
        for start in range(0, len(prompt), CHUNK_ROWS):
            await self._step(session, tuple(prompt[start : start + CHUNK_ROWS]), start)
        elapsed_s = time.perf_counter() - started_s
        self._stage.close(session)
        return len(prompt) / elapsed_s

    def logits(self, prompt: list[int]) -> Tensor:
        """fp32 (T, vocab)."""
        cache = KVCache(self._args, self._model.span, dtype=self._model.dtype, device=self._model.device)
        return self._model.logits(self._model.forward(self._model.embed(torch.tensor(prompt)), cache, 0))

    async def _prompt(self, prompt: list[int]) -> tuple[StageSession, int]:
        session = self._open(len(prompt) + 64)
        return session, await self._step(session, tuple(prompt), 0)

    def _open(self, max_positions: int) -> StageSession:
        session_id = SessionId(f"{next(self._numbers):032x}")
        return self._stage.open((NodeId(""), session_id, 0), 1, Span(0, self._args.n_layers), max_positions, 1)

    async def _step(self, session: StageSession, ids: tuple[int, ...], position: int) -> int:
        """The likeliest next id."""
        output = await self._stage.step(session, Step(1, position, ids, 1))
        (row,) = output.payload
        assert isinstance(row, TopLogits)
        return row.ids[0]


class Layer:
    """Layer 0 of a Mixtral in memory, and a cache of n_cached random positions.

    tensors: 'layers.0.…' by canonical name, interleaved.
    """

    def __init__(
        self, args: ModelArgs, tensors: dict[str, Tensor], numerics: Numerics, device: torch.device | str = "cpu"
    ) -> None:
        model = SpanModel(args, Span(0, 1), numerics, device=device)
        model.load_layer(0, {name.removeprefix("layers.0."): tensor for name, tensor in tensors.items()})
        self._begin(model)

    @classmethod
    def of(cls, model: SpanModel) -> Layer:
        layer = cls.__new__(cls)
        layer._begin(model)
        return layer

    def _begin(self, model: SpanModel) -> None:
        self._model = model
        rows = torch.randn(16, 1, model.args.dim, generator=torch.Generator().manual_seed(1))
        self._rows = rows.to(model.device, model.dtype)
        self._caches: dict[int, KVCache] = {}
        self._n_turns = 0

    async def tokens_per_s(self, n_cached: int, n_tokens: int = 4) -> float:
        """One turn: single tokens at the same position, of rows that go to different experts."""
        return await asyncio.to_thread(self._turn, n_cached, n_tokens)

    def _turn(self, n_cached: int, n_tokens: int) -> float:
        torch.set_num_threads(1)
        cache = self._cache(n_cached)
        started_s = time.perf_counter()
        for nth in range(n_tokens):
            self._model.forward(self._rows[(self._n_turns + nth) % 16], cache, n_cached)
        wait_for(self._model.device)
        self._n_turns += n_tokens
        return n_tokens / (time.perf_counter() - started_s)

    async def prompt_tokens_per_s(self, n_rows: int, n_prompts: int) -> float:
        """One turn: prompts of n_rows, with nothing before them."""
        return await asyncio.to_thread(self._prompts, n_rows, n_prompts)

    def _prompts(self, n_rows: int, n_prompts: int) -> float:
        cache = self._cache(n_rows)
        h = self._rows.view(16, -1).repeat(n_rows // 16, 1)
        started_s = time.perf_counter()
        for _ in range(n_prompts):
            self._model.forward(h, cache, 0)
        wait_for(self._model.device)
        return n_prompts * n_rows / (time.perf_counter() - started_s)

    def _cache(self, n_cached: int) -> KVCache:
        if n_cached not in self._caches:
            args = self._model.args
            cache = KVCache(args, Span(0, 1), dtype=self._model.dtype, device=self._model.device)
            cache.prepare(n_cached)
            keys, values = torch.randn(2, args.n_kv_heads, n_cached, args.head_dim).to(
                self._model.device, self._model.dtype
            )
            cache.layer(0).write(0, keys, values)
            cache.advance(n_cached)
            self._caches[n_cached] = cache
        return self._caches[n_cached]


def wait_for(device: torch.device) -> None:
    """Until what was launched there is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
