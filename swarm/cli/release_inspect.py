"""`swarm release inspect`: what a release is, from its folder, its torrent or its magnet link alone."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swarm.cli.console import format_count, format_piece_size, format_size, note, out_console, print_json
from swarm.cli.options import Reach, json_option, seeder_options, timeout_option
from swarm.errors import BadArgument

if TYPE_CHECKING:
    from swarm.release import ReleaseSummary
    from swarm.torrent import Magnet, Torrent

INSPECT_SCHEMA = "swarm.release.inspect/1"


@click.command(epilog="Example: swarm release inspect 'magnet:?xt=urn:btih:…' --timeout 120")
@click.argument("source", metavar="DIR|TORRENT|MAGNET")
@seeder_options
@timeout_option
@json_option
def inspect(source: str, reach: Reach, timeout_s: float, as_json: bool) -> None:
    """Show architecture, parameters, layers, their bytes, and the licence.

    Of a release that is not on this machine only the configs and the heads of the weight files are fetched.
    """
    summary, facts = summarise(source, reach, timeout_s)
    if as_json:
        print_json(INSPECT_SCHEMA, {**facts, **dataclasses.asdict(summary)})
    else:
        print_summary(summary, facts)


def summarise(source: str, reach: Reach, timeout_s: float) -> tuple[ReleaseSummary, dict[str, Any]]:
    """The summary, and what only the torrent knows (name, infohash, …), of any of the three kinds of source."""
    from swarm.torrent import Magnet, Torrent

    if source.startswith("magnet:"):
        magnet = Magnet.parse(source)
        for warning in magnet.warnings:
            note(f"warning: {warning}")
        return asyncio.run(summarise_remote(magnet, reach, timeout_s))
    path = Path(source)
    if source and path.is_dir():
        return summarise_folder(path.resolve()), {"name": path.resolve().name}
    if not path.is_file():
        raise BadArgument(f"{source!r} is no folder, no file and no magnet link; give one of the three")
    torrent = Torrent.load(path)
    folder = path.resolve().parent / torrent.name
    if is_complete(folder, torrent):
        return summarise_folder(folder), describe_torrent(torrent)
    return asyncio.run(summarise_remote(torrent, reach, timeout_s))


def is_complete(folder: Path, torrent: Torrent) -> bool:
    """Whether every file of the torrent lies in `folder` with its full size (a sparse file has that too)."""
    for entry in torrent.files:
        path = folder / entry.path
        if not entry.is_pad and not (path.is_file() and path.stat().st_size == entry.size_bytes):
            return False
    return True


def summarise_folder(folder: Path) -> ReleaseSummary:
    from swarm.release import describe, list_folder, read_folder_layout

    return describe(read_folder_layout(folder), list_folder(folder))


async def summarise_remote(
    source: Magnet | Torrent, reach: Reach, timeout_s: float
) -> tuple[ReleaseSummary, dict[str, Any]]:
    from swarm.cli.remote_release import fetch_release_layout
    from swarm.release import describe

    remote = await fetch_release_layout(source, reach, timeout_s)
    note(f"fetched {format_size(remote.fetched_bytes)} to read it")
    facts = {**describe_torrent(remote.torrent), "fetched_bytes": remote.fetched_bytes}
    return describe(remote.layout, remote.files), facts


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
    yield "context", f"{summary.context} tokens" + (f" (sliding windows: {windows})" if windows else "")
    yield "weights", f"{summary.stored_dtype}, {summary.format}, {format_size(summary.tensor_bytes)}"
    yield "one layer", format_size(summary.layer_bytes)
    if summary.n_experts:
        yield "its trunk", format_size(summary.trunk_bytes)
        yield "one expert", format_size(summary.expert_bytes)
    yield "embeddings", format_size(summary.embedding_bytes)
    yield "head", format_size(summary.head_bytes)
    yield "in all", f"{format_size(summary.total_bytes)} in {summary.n_files} files"
    if "piece_size" in facts:
        yield "pieces", f"{facts['n_pieces']} of {format_piece_size(facts['piece_size'])}"
    yield "tokenizer", summary.tokenizer_file or "none"
    yield "licence", summary.licence or "not stated"
