"""The same model on the same path, Stage, SpanModel and sampler, but all in this process: no network, no hops."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import torch

from node.hosting import load_part
from node.model import Numerics, SpanModel
from node.stage import DTYPES, Stage, StageConfig, StageSession
from swarm.client.session import CHUNK_TOKENS
from swarm.messages import Step, TopLogits
from swarm.release import read_folder_layout
from swarm.sampling import SamplingParams, sample
from swarm.terms import NodeId, SessionId, Span

GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)


class OneProcess:
    """A whole release in one Stage of this process; close() ends its compute thread."""

    def __init__(self, folder: Path, dtype: str, quantisation: str = "", *, is_exact: bool = False) -> None:
        layout = read_folder_layout(folder)
        self.args = layout.args
        self.model = load_model(folder, dtype, quantisation, is_exact=is_exact)
        config = StageConfig(cache_budget_bytes=1 << 30)
        self._stage = Stage(layout.args, {self.model.span: self.model}, config, torch.device("cpu"))
        self._numbers = itertools.count()

    def close(self) -> None:
        self._stage.shut_down()

    async def prefill(self, prompt: list[int]) -> float:
        """Prompt tokens/s, to the prompt's last logits."""
        session = self._open(len(prompt))
        try:
            started_s = time.perf_counter()
            await self._feed(session, prompt, 0)
            return len(prompt) / (time.perf_counter() - started_s)
        finally:
            self._stage.close(session)

    async def generate(self, prompt: list[int], n_tokens: int) -> AsyncGenerator[int, None]:
        """Greedy ids, each as soon as it is sampled."""
        session = self._open(len(prompt) + n_tokens)
        ids = list(prompt)
        try:
            row = await self._feed(session, prompt, 0)
            for _ in range(n_tokens):
                ids.append(sample(row, GREEDY, len(ids), 0, vocab_size=self.args.vocab_size).id)
                yield ids[-1]
                row = await self._feed(session, ids[-1:], len(ids) - 1)
        finally:
            self._stage.close(session)

    def _open(self, max_positions: int) -> StageSession:
        session_id = SessionId(f"{next(self._numbers):032x}")
        return self._stage.open((NodeId(""), session_id, 0), 1, Span(0, self.args.n_layers), max_positions, 1)

    async def _feed(self, session: StageSession, ids: list[int], position: int) -> TopLogits:
        rows: tuple[TopLogits, ...] = ()
        for start in range(0, len(ids), CHUNK_TOKENS):
            chunk = tuple(ids[start : start + CHUNK_TOKENS])
            is_last = start + len(chunk) == len(ids)
            output = await self._stage.step(session, Step(1, position + start, chunk, int(is_last)))
            assert isinstance(output.payload, tuple)
            rows = output.payload
        return rows[0]


def load_model(
    folder: Path, dtype: str, quantisation: str = "", *, is_exact: bool = False, device: str = "cpu"
) -> SpanModel:
    """Every layer of the release in folder, in dtype 'fp32' or 'bf16'; the latter may be quantised."""
    layout = read_folder_layout(folder)
    span = Span(0, layout.args.n_layers)
    model = SpanModel(layout.args, span, Numerics(DTYPES[dtype], quantisation, is_exact), device=device)
    for part in ("embeddings", *span, "head"):
        load_part(part, layout, {span: model}, folder)
    return model


def prompt_of(n_tokens: int, vocab_size: int) -> list[int]:
    """Some ids, always the same: what they mean does not matter to a model of random weights."""
    return [1, *((7919 * i) % (vocab_size - 3) + 3 for i in range(1, n_tokens))]
