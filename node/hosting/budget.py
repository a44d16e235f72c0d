"""What this machine can give to a release: layers by its memory and disk, their speed by a real step."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from node.hosting.memory import give_back_freed_memory
from node.model import KVCache, Numerics, SpanModel, why_no_gpu_kernels
from swarm.errors import BadArgument
from swarm.release import ModelArgs
from swarm.release.args import STORED_DTYPES
from swarm.terms import Span

RESERVED_SHARE = 0.25
"""Of the memory: for KV caches, activations and the rest of the machine."""

MEASURED_S = 0.2
"""How long steps are timed, at least eight of them: fewer on a busy machine measure only its other work."""

FEWEST_STEPS, MOST_STEPS = 8, 64

WARMED_ROWS = (2, 17, 33, 65, 129, 257, 512)
"""Batches for which kernels for a GPU differ."""


def layers_that_fit(args: ModelArgs, numerics: Numerics, memory_bytes: int, disk_bytes: int = 0) -> int:
    """How many whole layers, beside the embeddings and the head, memory_bytes and disk_bytes (0: unbounded) hold.

    Raises: BadArgument when not even one does, saying what would.
    """
    budget = int(memory_bytes * (1 - RESERVED_SHARE))
    outer = 2 * args.vocab_size * args.dim
    ends, layer = outer * numerics.dtype.itemsize, math.ceil(args.n_layer_params * numerics.layer_bytes_per_value)
    n_fitting = max(0, budget - ends) // layer
    if n_fitting == 0:
        raise BadArgument(
            f"one layer of this model takes {(layer + ends) / 1e6:,.1f} MB, but {budget / 1e6:,.1f} MB can be used: "
            "what --memory says or what is free, less a part for caches; give it more, or pick a smaller dtype or "
            "--quantize"
        )
    if disk_bytes:
        stored = STORED_DTYPES[args.stored_dtype]
        n_fitting = min(n_fitting, max(0, disk_bytes - outer * stored) // (args.n_layer_params * stored))
        if n_fitting == 0:
            needed = (outer + args.n_layer_params) * stored
            raise BadArgument(
                f"one layer of this model takes {needed / 1e6:,.1f} MB on disk and --disk allows "
                f"{disk_bytes / 1e6:,.1f} MB; allow at least that"
            )
    return min(args.n_layers, n_fitting)


def cache_budget(asked_bytes: int, free_bytes: int, models: Mapping[Span, SpanModel]) -> int:
    """What the KV caches of a node that hosts these models may take: what was asked for, or (0) a quarter of what is
    free, but room for one session in any case.

    Raises: BadArgument when no session would have room in what was asked for.
    """
    least = max(
        KVCache.size_bytes_for(model.args, span, 1, model.dtype, keeps_rows=span.end < model.args.n_layers)
        for span, model in models.items()
    )
    if 0 < asked_bytes < least:
        raise BadArgument(
            f"--cache-budget of {asked_bytes / 1e6:,.3f} MB holds no session of these layers, whose first page takes "
            f"{least / 1e6:,.3f} MB; allow more, or leave it away for a quarter of the free memory"
        )
    return asked_bytes or max(least, free_bytes // 4)


def measure_layer_time(args: ModelArgs, numerics: Numerics, device: torch.device) -> float:
    """Seconds for one token through one layer of these dimensions here: real kernels, weights of no meaning.

    The quickest of several steps after one that warms up: what else the machine does makes steps longer, none shorter.
    A mixture has only the experts that one token meets; takes their memory for the while, and a few seconds for
    layers of gigabytes. Where our own GPU kernels run it has all of them, and batches of all sizes are run once, so
    that the kernels are compiled before anybody waits for them, which happens once on a machine.
    """
    is_compiled = compiles_first(numerics, device)
    n_experts = args.n_experts if is_compiled else args.n_experts_per_tok
    one = dataclasses.replace(
        args, n_layers=1, windows=args.windows[:1], n_experts=n_experts, rope_layout="interleaved"
    )
    model = SpanModel(one, Span(0, 1), numerics, device=device)
    model.load_layer(0, _Filled(one, numerics.dtype, device))
    cache = KVCache(one, Span(0, 1), dtype=numerics.dtype, device=device)
    h = torch.full((1, args.dim), 0.5, dtype=numerics.dtype, device=device)
    if is_compiled:
        _compile(model, args.windows, h)
    took_s: list[float] = []
    while len(took_s) <= FEWEST_STEPS or (sum(took_s[1:]) < MEASURED_S and len(took_s) <= MOST_STEPS):
        started_s = time.perf_counter()
        model.forward(h, cache, 0)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took_s.append(time.perf_counter() - started_s)
    del model
    give_back_freed_memory()
    return min(took_s[1:])  # the first step also packs and warms up


def compiles_first(numerics: Numerics, device: torch.device) -> bool:
    """Whether our own kernels compute a layer there that are compiled for its sizes, and for those of its batches."""
    return device.type == "cuda" and numerics.dtype == torch.bfloat16 and why_no_gpu_kernels(device) is None


def _compile(model: SpanModel, windows: Sequence[int | None], h: Tensor) -> None:
    """Run the model's one layer once for each kind of kernel. windows: of all layers; they differ in having one."""
    for window in {window is None: window for window in windows}.values():
        args = dataclasses.replace(model.args, windows=(window,))
        like = SpanModel(args, model.span, model.numerics, device=model.device)
        like.share(model)
        cache = KVCache(args, model.span, dtype=model.dtype, device=model.device)
        for n_rows in WARMED_ROWS:
            like.forward(h.expand(min(n_rows, args.max_positions), -1).contiguous(), cache, 0)


class _Filled(Mapping[str, Tensor]):
    """A layer's tensors, each made when it is asked for: of no meaning, and of no zeros that a CPU might skip."""

    def __init__(self, args: ModelArgs, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype = dtype
        self._device = device
        dim, hidden = args.dim, args.hidden_dim
        n_q, n_kv = args.n_heads * args.head_dim, args.n_kv_heads * args.head_dim
        ffns = [f"feed_forward.experts.{e}" for e in range(args.n_experts)] or ["feed_forward"]
        self._shapes: dict[str, tuple[int, ...]] = {
            "attention_norm.weight": (dim,),
            "ffn_norm.weight": (dim,),
            "attention.wq.weight": (n_q, dim),
            "attention.wk.weight": (n_kv, dim),
            "attention.wv.weight": (n_kv, dim),
            "attention.wo.weight": (dim, n_q),
            "feed_forward.gate.weight": (args.n_experts, dim),
        }
        for ffn in ffns:
            self._shapes |= {f"{ffn}.w1.weight": (hidden, dim), f"{ffn}.w3.weight": (hidden, dim)}
            self._shapes[f"{ffn}.w2.weight"] = (dim, hidden)

    def __getitem__(self, name: str) -> Tensor:
        return torch.full(self._shapes[name], 0.01, dtype=self._dtype, device=self._device)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)
