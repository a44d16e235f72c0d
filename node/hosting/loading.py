"""Fetches the pieces of the hosted layers in the order of the layers, and loads each layer when it is whole, so that
the first ones serve while the rest is on its way.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.hosting.holding import Holding
from node.hosting.memory import give_back_freed_memory
from node.model import ExpertStore, SpanModel
from node.weights import LazyTensors
from swarm.release import FetchPlan, Part, PieceMap, ReleaseLayout, TensorRange, plan_fetch
from swarm.terms import ExpertId, Span, merge_spans
from swarm.torrent import Download


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """needed_bytes: of the hosted tensors and the small files. planned_bytes: the whole pieces that carry them.
    have_bytes: verified and on disk. fetched_bytes: payload that this run got over the network. found_bytes: of those
    planned, what is here without that. release_bytes: the whole release. pieces_here: of those planned. Rates are bytes
    per second.
    """

    layers_loaded: int
    layers_total: int
    experts_loaded: int
    experts_total: int
    needed_bytes: int
    planned_bytes: int
    have_bytes: int
    fetched_bytes: int
    found_bytes: int
    release_bytes: int
    download_rate: float
    upload_rate: float
    n_peers: int
    pieces_here: int
    pieces_planned: int

    @property
    def left_s(self) -> float | None:
        """How long the missing pieces will take at the present rate; None while nothing comes."""
        missing_bytes = (self.pieces_planned - self.pieces_here) * self.planned_bytes / max(1, self.pieces_planned)
        return missing_bytes / self.download_rate if self.download_rate else None if missing_bytes else 0.0

    def as_event(self) -> dict[str, int | float | None]:
        left_s = self.left_s
        return {**dataclasses.asdict(self), "left_s": None if left_s is None else round(left_s, 1)}


@dataclass(frozen=True, slots=True)
class Hosted:
    """Where what is held is loaded to. models: by holding.stages."""

    holding: Holding
    models: dict[Span, SpanModel]
    experts: ExpertStore


async def want_held(
    download: Download,
    layout: ReleaseLayout,
    holding: Holding,
    make_room: Callable[[Collection[int]], Awaitable[None]] | None = None,
    keep: Sequence[Span] = (),
    first: Collection[int] = (),
) -> FetchPlan:
    """Have what is held fetched from now on: layers in order, those named `first` before the others, then experts; the
    small files come too, for others to find here.

    make_room: told all pieces that are hosted from now on, before any of them is wanted. keep: spans that are hosted
    beside these, whose pieces stay; the layout holds them too.
    Raises: TransferError; BadArgument where there is no room.
    """
    torrent = download.torrent
    pieces = PieceMap(torrent.piece_size, torrent.offsets, torrent.sizes)
    plan = plan_fetch(layout, pieces, holding.spans, holding.experts, holding.trunks)
    plan = brought_forward(plan, first, layout.args.n_layers)
    await download.checked()
    if make_room is not None:
        kept = plan_fetch(layout, pieces, (*holding.spans, *keep), holding.experts, holding.trunks)
        await make_room(kept.all_pieces)
    await download.want(_priorities(plan))
    return plan


async def host(
    download: Download,
    layout: ReleaseLayout,
    hosted: Hosted,
    *,
    stall_timeout_s: float,
    on_progress: Callable[[FetchProgress], None],
    on_loaded: Callable[[tuple[Span, ...]], None],
    make_room: Callable[[Collection[int]], Awaitable[None]] | None = None,
    keep: Sequence[Span] = (),
    first: Collection[int] = (),
) -> None:
    """Fetch and load what is hosted, each part as soon as what carries it is verified.

    on_loaded: told after each part which layers can be served now, ends included; hosted.experts knows of the experts.
    make_room, keep, first: as of want_held().
    Raises: TransferStalled, DiskFull, VerificationError, CorruptRelease; BadArgument where there is no room.
    """
    holding, torrent = hosted.holding, download.torrent
    plan = await want_held(download, layout, holding, make_room, keep, first)
    loaded: set[Part] = set()

    def progress() -> FetchProgress:
        status = download.status()
        here = [piece for piece in plan.all_pieces if download.has(piece)]
        return FetchProgress(
            sum(isinstance(part, int) for part in loaded),
            sum(map(len, holding.stages)),
            sum(isinstance(part, ExpertId) for part in loaded),
            len(holding.experts),
            plan.needed_bytes + plan.companion_bytes,
            plan.fetched_bytes,
            status.have_bytes,
            status.fetched_bytes,
            max(0, torrent.bytes_in(here) - status.fetched_bytes),
            torrent.total_bytes,
            status.download_rate,
            status.upload_rate,
            status.n_peers,
            len(here),
            len(plan.all_pieces),
        )

    root = torrent.root_in(download.save_dir)
    reporter = asyncio.create_task(_report(lambda: on_progress(progress())))
    try:
        for part, carriers in plan.pieces_by_layer:
            await download.wait_for(carriers, stall_timeout_s=stall_timeout_s)
            await asyncio.to_thread(load_part, part, layout, hosted.models, root, hosted.experts)
            loaded.add(part)
            on_loaded(servable(holding.stages, layout.args.n_layers, loaded))
        await download.wait_for(plan.all_pieces, stall_timeout_s=stall_timeout_s)
    finally:
        reporter.cancel()
        await asyncio.gather(reporter, return_exceptions=True)
    on_progress(progress())


def regroup(models: Iterable[SpanModel], spans: Iterable[Span]) -> dict[Span, SpanModel]:
    """Models of these spans out of the layers that others have loaded, which stay as they are: nothing is copied."""
    old = list(models)
    new = {}
    for span in spans:
        model = SpanModel(old[0].args, span, old[0].numerics, device=old[0].device, experts=old[0].experts)
        for other in old:
            model.share(other)
        new[span] = model
    return new


def servable(spans: Sequence[Span], n_layers: int, loaded: Collection[Part]) -> tuple[Span, ...]:
    """The hosted layers that can be served with these parts: the first one needs the embeddings, the last one the
    head.
    """

    def is_whole(layer_idx: int) -> bool:
        ends = {0: "embeddings"}.get(layer_idx), {n_layers - 1: "head"}.get(layer_idx)
        return layer_idx in loaded and all(end is None or end in loaded for end in ends)

    return merge_spans([Span(idx, idx + 1) for span in spans for idx in span if is_whole(idx)])


def brought_forward(plan: FetchPlan, first: Collection[int], n_layers: int) -> FetchPlan:
    """The plan with these layers, and the model's ends that go with them, before its other parts."""

    ends: dict[Part, int] = {"embeddings": 0, "head": n_layers - 1}
    parts = sorted(plan.pieces_by_layer, key=lambda one: ends.get(one[0], one[0]) not in first)
    return dataclasses.replace(plan, pieces_by_layer=tuple(parts))


def _priorities(plan: FetchPlan) -> dict[int, int]:
    """Small files first, then the parts in order: 7 for the first, falling to 4, a step every quarter of the way."""
    priorities: dict[int, int] = dict.fromkeys(plan.all_pieces, 4)
    n_parts = max(1, len(plan.pieces_by_layer))
    for part_idx in range(len(plan.pieces_by_layer) - 1, -1, -1):
        _, pieces = plan.pieces_by_layer[part_idx]
        priorities.update(dict.fromkeys(pieces, 7 - 4 * part_idx // n_parts))
    priorities.update(dict.fromkeys(plan.small_pieces, 7))
    return priorities


def load_part(
    part: Part,
    layout: ReleaseLayout,
    models: dict[Span, SpanModel],
    root: Path,
    experts: ExpertStore | None = None,
) -> None:
    """Load one part of a FetchPlan into the models that host it, a single expert into the store, reading and packing
    one tensor after the other.

    root: the folder that the layout's file names are relative to. Its pieces must be verified.
    """
    if isinstance(part, ExpertId):
        assert experts is not None
        prefix = f"layers.{part.layer_idx}.feed_forward.experts.{part.expert_idx}."
        ranges = {name.removeprefix(prefix): where for name, where in layout.expert_tensors(part).items()}
        experts.load(part, LazyTensors(ranges, root, dtype=experts.numerics.dtype, device=experts.device))
    for span, model in models.items():

        def load(ranges: dict[str, TensorRange], model: SpanModel = model) -> LazyTensors:
            return LazyTensors(ranges, root, dtype=model.dtype, device=model.device)

        if isinstance(part, int) and part in span:
            prefix = f"layers.{part}."
            stored = layout.trunk_tensors(part) if model.is_trunk(part) else layout.layer_tensors(part)
            ranges = {name.removeprefix(prefix): where for name, where in stored.items()}
            model.load_layer(part, load(ranges))
        elif part == "embeddings" and span.start == 0:
            model.load_embeddings(load(layout.embedding_tensors())["tok_embeddings.weight"])
        elif part == "head" and span.end == layout.args.n_layers:
            tensors = load(layout.head_tensors())
            output = "output.weight" if "output.weight" in tensors else "tok_embeddings.weight"
            model.load_head(tensors["norm.weight"], tensors[output])
    give_back_freed_memory()


async def _report(say: Callable[[], None]) -> None:
    while True:
        say()
        await asyncio.sleep(0.5)
