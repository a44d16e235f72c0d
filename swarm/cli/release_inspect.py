"""`swarm release inspect`: what a release is, from its folder, its torrent or its magnet link alone."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swarm.cli.console import (
    WAITING_LOG,
    ProgressMeter,
    format_count,
    format_piece_size,
    format_rate,
    format_size,
    note,
    note_logs,
    out_console,
    print_json,
)
from swarm.cli.links import require_somebody
from swarm.cli.local_swarm import interrupted_by_sigterm
from swarm.cli.options import Reach, json_option, onlooker_option, timeout_option, torrent_options
from swarm.cli.release_files import path_or_magnet
from swarm.cli.release_sign import check_papers
from swarm.errors import BadArgument, CorruptRelease
from swarm.terms import counted

if TYPE_CHECKING:
    from swarm.client.admission import Admission, Provenance
    from swarm.release import ReleaseSummary
    from swarm.torrent import Download, Magnet, Torrent

INSPECT_SCHEMA = "swarm.release.inspect/1"
SHOW_EVERY_S = 0.25


@click.command(epilog="Example: swarm release inspect 'magnet:?xt=urn:btih:…' --timeout 120")
@click.argument("source", metavar="DIR|TORRENT|MAGNET")
@torrent_options
@timeout_option(60.0, "How long to wait for metadata, or for a next piece.")
@click.option("--check-values", is_flag=True, help="For a DIR: read every weight, and fail on NaN and infinite ones.")
@onlooker_option
@json_option
def inspect(
    source: str, reach: Reach, timeout_s: float, check_values: bool, admission: Admission, as_json: bool
) -> None:
    """Show architecture, parameters, layers, their bytes, the licence, and who signed it.

    Of a release that is not on this machine only the small files and the heads of the weight files are fetched. A name
    from `swarm release list` stands for its link.
    """
    if check_values:
        if not Path(source).is_dir():
            raise BadArgument("--check-values reads every weight: give the folder that holds them")
        check_folder_values(Path(source).resolve())
    summary, facts = summarise(source, reach, timeout_s, admission)
    if as_json:
        print_json(INSPECT_SCHEMA, {**facts, **dataclasses.asdict(summary)})
    else:
        print_summary(summary, facts)


def summarise(
    source: str, reach: Reach, timeout_s: float, admission: Admission
) -> tuple[ReleaseSummary, dict[str, Any]]:
    """The summary, and what only the torrent knows (name, infohash, …), of any of the three kinds of source."""
    from swarm.torrent import Torrent

    path = path_or_magnet(source)
    if not isinstance(path, Path):
        with interrupted_by_sigterm():
            return asyncio.run(summarise_remote(path, reach, timeout_s, admission))
    if path.is_dir():
        summary, signed = summarise_folder(path.resolve(), "", admission)
        return summary, {"name": path.resolve().name, **signed}
    torrent = Torrent.load(path)
    folder = path.resolve().parent / torrent.name
    if is_complete(folder, torrent):
        summary, signed = summarise_folder(folder, torrent.infohash, admission)
        return summary, {**describe_torrent(torrent), **signed}
    with interrupted_by_sigterm():
        return asyncio.run(summarise_remote(torrent, reach, timeout_s, admission))


def is_complete(folder: Path, torrent: Torrent) -> bool:
    """Whether every file of the torrent lies in `folder` with its full size (a sparse file has that too)."""
    paths = {folder / path: size_bytes for path, size_bytes in torrent.sizes.items()}
    return all(path.is_file() and path.stat().st_size == size_bytes for path, size_bytes in paths.items())


def summarise_folder(folder: Path, infohash: str, admission: Admission) -> tuple[ReleaseSummary, dict[str, Any]]:
    """With who signed it; a signed manifest is held against the files' heads. Raises: ReleaseError."""
    from swarm.release import describe, list_folder

    layout, provenance = check_papers(folder, admission, infohash)
    return describe(layout, list_folder(folder)), describe_provenance(provenance)


def check_folder_values(folder: Path) -> None:
    """Raises: CorruptRelease naming the first tensor that holds NaN or infinite values."""
    from swarm.release import folder_reader, read_folder_layout
    from swarm.release.values import find_unusable

    layout = read_folder_layout(folder)
    total, done = sum(tensor.size_bytes for tensor in layout.tensors.values()), 0
    with ProgressMeter("checking values", total) as meter:
        for name, n_unusable, size_bytes in find_unusable(layout, folder_reader(folder)):
            if n_unusable:
                where = layout.tensors[name].file
                raise CorruptRelease(
                    f"{where}: {name} holds {counted(n_unusable, 'NaN or infinite value')}, so every answer "
                    "would be nonsense; get the release from its publisher again"
                )
            done += size_bytes
            meter.update(done)
    note(f"all {len(layout.tensors)} tensors hold finite numbers")


def describe_provenance(provenance: Provenance) -> dict[str, Any]:
    return {"signer": provenance.signer, "signature": provenance.words}


async def summarise_remote(
    source: Magnet | Torrent, reach: Reach, timeout_s: float, admission: Admission
) -> tuple[ReleaseSummary, dict[str, Any]]:
    """Of a release that is not on this machine, read into a temporary folder that is gone afterwards.

    Raises: MetadataTimeout, TransferStalled, CorruptRelease, UnsupportedArchitecture.
    """
    from swarm.client.release import read_admitted_layout
    from swarm.release import describe
    from swarm.torrent import TorrentSession

    require_somebody(source, reach)
    note_logs(WAITING_LOG)
    with tempfile.TemporaryDirectory(prefix="swarm-inspect-") as folder:
        async with TorrentSession(reach.torrent_config()) as session:
            download = await session.add(source, Path(folder), peers=reach.torrent_peers)
            torrent = await download.metadata(timeout_s)
            async with showing_fetched(download, f"reading the heads of {torrent.name}"):
                layout, provenance = await read_admitted_layout(
                    download, torrent, None, admission, stall_timeout_s=timeout_s
                )
            fetched_bytes = (await download.refresh()).fetched_bytes
    note(f"fetched {format_size(fetched_bytes)} to read it")
    return describe(layout, torrent.sizes), {
        **describe_torrent(torrent),
        **describe_provenance(provenance),
        "fetched_bytes": fetched_bytes,
    }


@contextlib.asynccontextmanager
async def showing_fetched(download: Download, title: str) -> AsyncIterator[None]:
    """Show on stderr how much has come, until the block ends."""
    with ProgressMeter(title) as meter:

        async def keep_showing() -> None:
            while True:
                status = download.status()
                meter.update(status.fetched_bytes, format_rate(status.download_rate))
                await asyncio.sleep(SHOW_EVERY_S)

        showing = asyncio.create_task(keep_showing())
        try:
            yield
        finally:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)


def describe_torrent(torrent: Torrent) -> dict[str, Any]:
    return {
        "name": torrent.name,
        "infohash": torrent.infohash,
        "piece_size": torrent.piece_size,
        "n_pieces": torrent.n_pieces,
    }


def print_summary(summary: ReleaseSummary, facts: dict[str, Any]) -> None:
    """Two columns: what it is, and in what portions it can be hosted."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for heading, words in summary_rows(summary, facts):
        table.add_row(heading, words)
    out_console().print(table)


def summary_rows(summary: ReleaseSummary, facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "name", facts["name"]
    if "infohash" in facts:
        yield "infohash", facts["infohash"]
    active = f", {format_count(summary.n_active_params)} active per token" if summary.n_experts else ""
    yield "architecture", summary.architecture
    yield "parameters", f"{format_count(summary.n_params)}{active}"
    experts = f", {summary.n_experts} experts each, {summary.n_experts_per_tok} per token" if summary.n_experts else ""
    yield "layers", f"{summary.n_layers}{experts}"
    windows = ", ".join(str(window) for window in summary.windows)
    yield "context", counted(summary.context, "token") + (f" (sliding windows: {windows})" if windows else "")
    yield "weights", f"{summary.stored_dtype}, {summary.format}, {format_size(summary.tensor_bytes)}"
    yield "one layer", format_size(summary.layer_bytes)
    if summary.n_experts:
        yield "its trunk", format_size(summary.trunk_bytes)
        yield "one expert", format_size(summary.expert_bytes)
    yield "embeddings", format_size(summary.embedding_bytes)
    yield "head", format_size(summary.head_bytes)
    yield "in all", f"{format_size(summary.total_bytes)} in {counted(summary.n_files, 'file')}"
    if "piece_size" in facts:
        yield "pieces", f"{facts['n_pieces']} of {format_piece_size(facts['piece_size'])}"
    yield "tokenizer", summary.tokenizer_file or "none"
    yield "licence", summary.licence or "not stated"
    yield "signature", facts["signature"]
