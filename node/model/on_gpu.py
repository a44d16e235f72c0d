"""Layers on a GPU that runs our own kernels: everything of a layer happens there, the routing too.

The host launches kernels and is told nothing until the batch is done. So a few rows (decode, speculation) are not
launched kernel by kernel, which takes the host longer than the GPU takes to compute them: what a batch of so many rows
launches is recorded once (a CUDA graph) and replayed for every batch of as many, with other rows, positions and pages.
"""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from node.model.batch import Batch
from node.model.device_memory import RECORDING, is_out_of_memory
from node.model.experts import Steps
from node.model.fused import parts_of, runs_own_kernels
from node.model.layer import Layer
from node.model.moe import MoE
from node.model.ops import gpu
from node.model.ops.parts import Session
from swarm.errors import LocalProtocolError
from swarm.terms import Span

if TYPE_CHECKING:
    from node.model.ops.gpu.attention import Rows
    from node.model.ops.gpu.layer import Layer as KernelLayer

logger = logging.getLogger(__name__)

MAX_REPLAYED_ROWS = 64
"""A batch of more is launched kernel by kernel: the GPU is busy for long enough."""

MAX_HEAD_DIM = 128
MAX_HEADS_TOGETHER = 64
"""Query heads of a KV head. A tile of more of either takes more shared memory than most GPUs have."""

MAX_GRAPHS = 64
"""Kept, of the numbers of rows that were seen last; each takes a few MB, beside the memory that all of them share."""

MAX_SEEN = 16 * MAX_GRAPHS
"""Remembered, of spans and numbers of rows that came once: what comes again is worth a graph."""

_PLACES = 1 << 16
"""Positions and page addresses of one batch."""


class GpuLayer:
    """h (T, D) -> (T, D), as layer says. Experts that are not here are asked for between two calls."""

    __slots__ = ("_moe", "kernels", "layer")

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self._moe = layer.feed_forward if isinstance(layer.feed_forward, MoE) else None
        self.kernels = self._launchable()

    @property
    def n_heads_together(self) -> int:
        """Query heads that share a KV head."""
        return self.layer.attention.n_heads // self.layer.attention.n_kv_heads

    @property
    def is_whole(self) -> bool:
        """Every expert is here."""
        if not self.kernels.has_experts and self._moe is not None and self._moe.is_whole:
            self.kernels = self._launchable()  # what was elsewhere has come
        return self.kernels.has_experts

    def steps(self, h: Tensor, batch: Batch, layer_idx: int) -> Steps[Tensor]:
        if self.is_whole:
            return launch([self], h, batch, Span(layer_idx, layer_idx + 1))
        assert self._moe is not None
        (rows,), (nth,) = places([self], batch, Span(layer_idx, layer_idx + 1))
        h, x, weights, chosen = self.kernels.attend_and_route(h.contiguous(), rows, nth)
        mixed = yield from self._moe.mix(x, weights, chosen)
        return h + mixed

    def _launchable(self) -> KernelLayer:
        from node.model.ops.gpu.layer import Layer as KernelLayer

        kernels, moe = KernelLayer(parts_of(self.layer)), self._moe
        if moe is not None and moe.heat is not None and kernels.has_experts:
            moe.heat.watch(moe.layer_idx, moe.n_experts_per_tok, partial(read_beside, kernels.counts))
        return kernels


def read_beside(counts: Tensor) -> list[int]:
    """What a device has counted so far, without waiting for the batches that it is given: any thread may ask."""
    if counts.device.type != "cuda":
        return list(map(int, counts.tolist()))
    # Graphs are recorded on streams of the usual priority: no other ever is the one that is being recorded on.
    with torch.cuda.stream(torch.cuda.Stream(counts.device, priority=-1)):
        return list(map(int, counts.tolist()))


def gpu_layer(layer: Layer) -> GpuLayer | None:
    """None where some product of the layer runs a library's kernel, or its mixture or its heads are larger than our
    kernels take.
    """
    if gpu.why_absent(layer.attention_norm.weight.device) is not None:
        return None
    attention = layer.attention
    if attention.head_dim > MAX_HEAD_DIM or attention.n_heads > MAX_HEADS_TOGETHER * attention.n_kv_heads:
        return None
    from node.model.ops.gpu.products import Matrix

    return GpuLayer(layer) if runs_own_kernels(layer, Matrix) else None


class Replays:
    """Batches of a few rows through layers of one model, replayed. One thread at a time."""

    def __init__(self) -> None:
        self._pool: Any = None  # memory that all graphs share: only one of them runs at a time
        self._stream: Any = None  # on which all are recorded: what was freed on one stream is no other's to take
        self._seen: OrderedDict[tuple[Span, int], None] = OrderedDict()
        self._graphs: OrderedDict[tuple[Span, int], _Graph] = OrderedDict()
        self._places: dict[int | None, Tensor] = {}
        self._may_record = True

    def run(self, layers: Sequence[GpuLayer], h: Tensor, batch: Batch, span: Span) -> Tensor:
        """h (T, D) through the layers of the span, all of whose experts are here."""
        if h.device.type != "cuda" or batch.n_rows > MAX_REPLAYED_ROWS:
            return launch(layers, h, batch, span)
        sessions, nths = _sessions(batch, span)
        if max(4 * (batch.n_rows + 1) + sum(len(s.pages) for s in of) for of in sessions.values()) > _PLACES:
            return launch(layers, h, batch, span)
        key = (span, batch.n_rows)
        kernels = [layer.kernels for layer in layers]
        graph = self._graphs.get(key)
        if graph is None or not graph.is_of(kernels, nths, batch.rotations_by_position):
            # What came before has compiled what will be recorded.
            graph = self._recorded(layers, h, batch, span) if key in self._seen and self._may_record else None
            if graph is None:
                self._see(key)
                return launch(layers, h, batch, span, is_row_by_row=True)
        self._graphs.move_to_end(key)
        return graph.replay(h, batch, sessions)

    def _see(self, key: tuple[Span, int]) -> None:
        self._seen[key] = None
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)

    def _recorded(self, layers: Sequence[GpuLayer], h: Tensor, batch: Batch, span: Span) -> _Graph | None:
        """None where it cannot be: for want of memory now, for any other reason never again."""
        try:
            self._stream = self._stream or torch.cuda.Stream(h.device)
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            for window in _windows(batch, span):
                if window not in self._places:
                    self._places[window] = torch.zeros(_PLACES, dtype=torch.long, device=h.device)
            graph = _Graph(layers, h, batch, span, self._pool, self._stream, self._places)
        except RuntimeError as error:
            self._may_record = is_out_of_memory(error)
            why = str(error).partition("\n")[0]
            logger.warning("batches of %d rows are not replayed, and slower for it: %s", batch.n_rows, why)
            self._forget()
            return None
        self._graphs[span, batch.n_rows] = graph
        if len(self._graphs) > MAX_GRAPHS:
            self._graphs.popitem(last=False)
        return graph

    def _forget(self) -> None:
        """Every graph, and their memory: a pool that no graph has any more takes no other one."""
        self._graphs.clear()
        self._seen.clear()
        self._pool = None


class _Graph:
    """What a batch of h's rows launches, with the memory where such a batch is put before it is launched again.

    pool, stream, places (by window, int64): for all graphs of these layers. Raises: RuntimeError where it cannot be
    recorded; torch.OutOfMemoryError is one.
    """

    def __init__(
        self,
        layers: Sequence[GpuLayer],
        h: Tensor,
        batch: Batch,
        span: Span,
        pool: Any,
        stream: Any,
        places: dict[int | None, Tensor],
    ) -> None:
        from node.model.ops.gpu.layer import run_layers

        sessions, self._nths = _sessions(batch, span)
        self._group = layers[0].n_heads_together
        self._kernels = [layer.kernels for layer in layers]
        self._h = torch.empty_like(h)
        self._rotations = batch.rotations_by_position
        self._places = places
        by_window = self._put(h, batch, sessions)
        rows = [by_window[window] for window in _windows(batch, span)]
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(h.device)
        with RECORDING, torch.cuda.stream(stream):
            self._graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                self._out = run_layers(self._kernels, self._h, rows, self._nths)
            except BaseException:
                with contextlib.suppress(RuntimeError):  # what went wrong first is what there is to tell
                    self._graph.capture_end()
                raise
            self._graph.capture_end()
        torch.cuda.synchronize(h.device)

    def is_of(self, kernels: Sequence[KernelLayer], nths: Sequence[int], rotations: Tensor) -> bool:
        """Whether what was recorded reads these."""
        same = self._nths == list(nths) and self._rotations is rotations
        return same and all(a is b for a, b in zip(self._kernels, kernels, strict=True))

    def replay(self, h: Tensor, batch: Batch, sessions: dict[int | None, list[Session]]) -> Tensor:
        self._put(h, batch, sessions)
        self._graph.replay()
        return self._out.clone()

    def _put(self, h: Tensor, batch: Batch, sessions: dict[int | None, list[Session]]) -> dict[int | None, Rows]:
        from node.model.ops.gpu.attention import Rows

        self._h.copy_(h)
        return {
            window: Rows(of, self._rotations, self._group, is_row_by_row=True, into=self._places[window])
            for window, of in sessions.items()
        }


def launch(layers: Sequence[GpuLayer], h: Tensor, batch: Batch, span: Span, *, is_row_by_row: bool = False) -> Tensor:
    """h (T, D) through the layers of the span, all of whose experts are here, kernel by kernel."""
    from node.model.ops.gpu.layer import run_layers

    rows, nths = places(layers, batch, span, is_row_by_row=is_row_by_row)
    return run_layers([layer.kernels for layer in layers], h, rows, nths)


def places(
    layers: Sequence[GpuLayer], batch: Batch, span: Span, *, is_row_by_row: bool = False
) -> tuple[list[Rows], list[int]]:
    """For each layer where the rows are, and which of the layers that share a page it is."""
    from node.model.ops.gpu.attention import Rows

    sessions, nths = _sessions(batch, span)
    group = layers[0].n_heads_together
    by_window = {
        window: Rows(of, batch.rotations_by_position, group, is_row_by_row=is_row_by_row)
        for window, of in sessions.items()
    }
    return [by_window[window] for window in _windows(batch, span)], nths


def _windows(batch: Batch, span: Span) -> list[int | None]:
    cache = batch.chunks[0].cache
    return [cache.layer(layer_idx).group.window for layer_idx in span]


def _sessions(batch: Batch, span: Span) -> tuple[dict[int | None, list[Session]], list[int]]:
    """By window the rows' sessions; and nths, see places. Raises: LocalProtocolError for caches of several spans."""
    caches = [chunk.cache for chunk in batch.chunks]
    if any(cache.span != caches[0].span for cache in caches):
        raise LocalProtocolError("the sessions of one batch on a GPU cache the same layers")
    sessions: dict[int | None, list[Session]] = {}
    nths = []
    for layer_idx in span:
        of_first = caches[0].layer(layer_idx)
        nths.append(of_first.nth)
        if of_first.group.window not in sessions:
            groups = [cache.layer(layer_idx).group for cache in caches]
            sessions[of_first.group.window] = batch.sessions(groups)
    return sessions, nths
