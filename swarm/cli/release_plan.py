"""`swarm release plan`: what hosting some layers or experts would fetch, without fetching a weight."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swarm.cli.console import WAITING_LOG, format_piece_size, format_size, note, note_logs, out_console, print_json
from swarm.cli.links import require_somebody
from swarm.cli.local_swarm import interrupted_by_sigterm
from swarm.cli.options import Reach, SizeType, json_option, timeout_option, torrent_options
from swarm.cli.release_files import default_piece_size, path_or_magnet, reusable_torrent
from swarm.errors import BadArgument
from swarm.terms import ExpertId, Span

if TYPE_CHECKING:
    from swarm.release import ReleaseLayout
    from swarm.torrent import Magnet, Torrent

PLAN_SCHEMA = "swarm.release.plan/1"
LAYOUTS = ("mixtral-8x7b", "mixtral-8x22b")
FORMATS = ("hf", "mistral", "mistral-fused", "mistral-pth")
EXAMPLE_PARTS = ("layers 0:4", "layers 12:16", "experts 5:3", "experts 8-15:3", "experts 7:0-3")
"""What --layout plans when neither --layers nor --experts say: spans, one expert, one of eight layers, four of one."""

_SIDE = r"(\d{1,6})(?:-(\d{1,6}))?"
MAX_EXPERTS = 200_000


@dataclass(frozen=True, slots=True)
class Part:
    """What to host. words: as the user wrote it."""

    words: str
    spans: tuple[Span, ...]
    experts: tuple[ExpertId, ...]


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One line of the table. needed_bytes: tensors and small files. fetched_bytes: the whole pieces that carry them and
    what tells where they lie. format: 'hf', 'mistral' (consolidated safetensors), 'mistral-pth', 'mistral-fused'.
    """

    release: str
    format: str
    part: str
    piece_size: int
    n_pieces: int
    needed_bytes: int
    fetched_bytes: int

    @property
    def ratio(self) -> float:
        return self.fetched_bytes / self.needed_bytes


@click.command(
    epilog="Example: swarm release plan ./Mixtral-8x7B-v0.1 --layers 0:8   or: swarm release plan --layout mixtral-8x7b"
)
@click.argument("source", metavar="[DIR|TORRENT|MAGNET]", required=False)
@click.option("--layers", "layers", multiple=True, metavar="START:END", help="Layers to host (repeatable).")
@click.option(
    "--experts",
    "experts",
    multiple=True,
    metavar="LAYER:EXPERT,…",
    help="Single experts; either side may be a range: 0-7:3 (repeatable).",
)
@click.option("--layout", type=click.Choice(LAYOUTS), help="Plan on this model's true layouts instead of a SOURCE.")
@click.option("--format", "formats", type=click.Choice(FORMATS), multiple=True, help="With --layout: only these.")
@click.option(
    "--piece-size", "piece_sizes", type=SizeType(least=16 * 1024), multiple=True,
    help="Plan with other pieces than the release has, or `release create` would pick (repeatable).",
)  # fmt: skip
@torrent_options
@timeout_option(60.0, "How long to wait for metadata, or for a next piece.")
@json_option
def plan(
    source: str | None,
    layers: tuple[str, ...],
    experts: tuple[str, ...],
    layout: str | None,
    formats: tuple[str, ...],
    piece_sizes: tuple[int, ...],
    reach: Reach,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Show what hosting layers or experts needs and fetches: bytes, pieces, and fetched/needed.

    With --layout the model's files are laid out at their true sizes without data; HF's shard boundaries are derived
    by save_pretrained's rule.
    """
    if (source is None) == (layout is None):
        raise BadArgument("name either a release (a folder, torrent or magnet link) or --layout MODEL")
    if layout is not None:
        parts = [parse_part(layers, experts)] if layers or experts else [example_part(words) for words in EXAMPLE_PARTS]
        rows = list(plan_layouts(layout, formats or FORMATS, parts, piece_sizes))
    else:
        if formats:
            raise BadArgument("--format goes with --layout; a release has the one format that it has")
        assert source is not None
        path = path_or_magnet(source)  # a name that means nothing is said first: without it no flag helps
        rows = plan_source(path, parse_part(layers, experts), piece_sizes, reach, timeout_s)
    if as_json:
        print_json(PLAN_SCHEMA, {"rows": [{**dataclasses.asdict(row), "ratio": round(row.ratio, 5)} for row in rows]})
        return
    print_rows(rows)


def parse_part(layers: Sequence[str], experts: Sequence[str]) -> Part:
    """Raises: BadArgument."""
    spans = tuple(Span.parse(text) for text in layers)
    found = tuple(expert for text in experts for expert in parse_experts(text))
    if not spans and not found:
        raise BadArgument("say what to host: --layers 0:8, or --experts 5:3 (layer 5, expert 3)")
    words = [f"layers {text}" for text in layers] + [f"experts {text}" for text in experts]
    return Part(", ".join(words), spans, found)


def example_part(words: str) -> Part:
    kind, text = words.split(" ")
    return parse_part([text], []) if kind == "layers" else parse_part([], [text])


def parse_experts(text: str) -> list[ExpertId]:
    """`5:3`, `0-7:3` or `5:0-3`, several with commas between; layers that are left out are those before: `0-7:3,5`.

    Raises: BadArgument.
    """
    experts: list[ExpertId] = []
    layers_before = ""
    for one in text.split(","):
        named = one if ":" in one or not layers_before else f"{layers_before}:{one}"
        layers_before = named.partition(":")[0]
        match = re.fullmatch(rf"\s*{_SIDE}\s*:\s*{_SIDE}\s*", named)
        if match is None:
            raise BadArgument(f"{one!r} is not an expert; write LAYER:EXPERT, such as 5:3, or with ranges 0-7:3")
        layers = range(int(match[1]), int(match[2] or match[1]) + 1)
        indices = range(int(match[3]), int(match[4] or match[3]) + 1)
        if not layers or not indices or len(layers) * len(indices) > MAX_EXPERTS:
            raise BadArgument(f"{one!r} names no experts, or more than {MAX_EXPERTS}; a range is LOW-HIGH")
        experts += [ExpertId(layer_idx, expert_idx) for layer_idx in layers for expert_idx in indices]
    return experts


def plan_layouts(
    model: str, formats: Sequence[str], parts: Sequence[Part], piece_sizes: Sequence[int]
) -> Iterator[PlanRow]:
    """Rows for a known model's layouts. Raises: BadArgument."""
    from swarm.release import hollow_release, pick_piece_size
    from swarm.release.hollow import KNOWN_ARGS

    for format in formats:
        release = hollow_release(KNOWN_ARGS[model], format)
        picked = pick_piece_size(sum(release.sizes.values()), format)
        for part in parts:
            layout = release.layout(part.spans, part.experts)
            for piece_size in piece_sizes or (picked,):
                yield plan_row(model, layout, part, release.sizes, piece_size)


def plan_row(name: str, layout: ReleaseLayout, part: Part, sizes: dict[str, int], piece_size: int) -> PlanRow:
    """On a v1 torrent of these files, in the order in which `release create` lists them."""
    from swarm.release import PieceMap

    offsets: dict[str, int] = {}
    at = 0
    for file in sorted(sizes, key=lambda path: path.encode("utf-8", "surrogateescape")):
        offsets[file] = at
        at += sizes[file]
    return row_of(name, layout, part, PieceMap(piece_size, offsets, sizes))


def row_of(name: str, layout: ReleaseLayout, part: Part, pieces: Any) -> PlanRow:
    from swarm.release import plan_fetch

    fetch = plan_fetch(layout, pieces, part.spans, part.experts)
    needed = fetch.needed_bytes + fetch.companion_bytes
    return PlanRow(
        name, layout.format, part.words, pieces.piece_size, len(fetch.all_pieces), needed, fetch.fetched_bytes
    )


def plan_source(
    path: Path | Magnet, part: Part, piece_sizes: Sequence[int], reach: Reach, timeout_s: float
) -> list[PlanRow]:
    """Raises: BadArgument, ReleaseError, TransferError."""
    from swarm.release import PieceMap, list_folder, read_folder_layout
    from swarm.torrent import Torrent

    if isinstance(path, Path) and path.is_dir():
        folder = path.resolve()
        layout, sizes = read_folder_layout(folder, part.spans, part.experts), list_folder(folder)
        torrent = reusable_torrent(folder)
        if torrent is None and not piece_sizes:
            piece_sizes = (default_piece_size(folder),)
        name = folder.name
    else:
        named = Torrent.load(path) if isinstance(path, Path) else path
        with interrupted_by_sigterm():
            torrent, layout = asyncio.run(read_remote(named, part, reach, timeout_s))
        name, sizes = torrent.name, torrent.sizes
    if torrent is not None and not piece_sizes:
        return [row_of(name, layout, part, PieceMap(torrent.piece_size, torrent.offsets, torrent.sizes))]
    return [plan_row(name, layout, part, sizes, piece_size) for piece_size in piece_sizes]


async def read_remote(
    source: Magnet | Torrent, part: Part, reach: Reach, timeout_s: float
) -> tuple[Torrent, ReleaseLayout]:
    """Only the small files and the heads are fetched, into a temporary folder."""
    from swarm.client.release import read_remote_layout
    from swarm.torrent import TorrentSession

    require_somebody(source, reach)
    note_logs(WAITING_LOG)
    with tempfile.TemporaryDirectory(prefix="swarm-plan-") as folder:
        async with TorrentSession(reach.torrent_config()) as session:
            download = await session.add(source, Path(folder), peers=reach.torrent_peers)
            torrent = await download.metadata(timeout_s)
            layout = await read_remote_layout(
                download, torrent, part.spans, experts=part.experts, stall_timeout_s=timeout_s
            )
            fetched_bytes = (await download.refresh()).fetched_bytes
    note(f"fetched {format_size(fetched_bytes)} to read it")
    return torrent, layout


def print_rows(rows: Sequence[PlanRow]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("release", "format", "hosted", "piece size", "pieces", "needed", "fetched", "fetched/needed"):
        table.add_column(
            heading, no_wrap=True, justify="left" if heading in ("release", "format", "hosted") else "right"
        )
    for row in rows:
        sizes = (format_size(row.needed_bytes), format_size(row.fetched_bytes), f"{row.ratio:.4f}")
        table.add_row(row.release, row.format, row.part, format_piece_size(row.piece_size), str(row.n_pieces), *sizes)
    out_console().print(table)
