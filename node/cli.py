"""`swarm node …`: flags into a NodeConfig, events onto the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from node.cli_events import progress_words, tell, tell_placement
from node.cli_running import status, stop
from swarm.cli.console import (
    WAITING_LOG,
    ProgressMeter,
    note,
    note_logs,
    print_event,
)
from swarm.cli.links import read_magnet
from swarm.cli.options import (
    ADDRESS,
    RATE,
    SIZE,
    SPAN,
    Reach,
    RelayRateType,
    admission_options,
    data_dir_option,
    json_option,
    listen_option,
    magnet_argument,
    node_options,
    timeout_option,
    torrent_settings_option,
)
from swarm.cli.release_plan import parse_experts
from swarm.errors import BadArgument, Interrupted
from swarm.terms import Address, Profile, Span, counted

if TYPE_CHECKING:
    from node.config import NodeConfig
    from swarm.client.admission import Admission

EVENTS = "swarm.node/1"


@click.group()
def node() -> None:
    """Host part of a model for the swarm."""


node.add_command(status)
node.add_command(stop)


@node.command()
@magnet_argument()
@click.option(
    "--layers",
    "spans",
    type=SPAN,
    multiple=True,
    help="Layers to host, counted from 0, END left out: 0:8 are the first eight (repeatable). Default: chosen, and "
    "chosen anew, by memory and need.",
)
@click.option(
    "--trunk",
    "trunks",
    type=SPAN,
    multiple=True,
    help="Layers to host without their experts, which other nodes answer for: 0:16 (repeatable).",
)
@click.option(
    "--experts",
    "experts",
    multiple=True,
    metavar="LAYER:EXPERT,…",
    help="Single experts to host; either side may be a range: 0-31:5,6 (repeatable).",
)
@click.option(
    "--dtype", type=click.Choice(["bf16", "fp32"]), default="bf16", show_default=True, help="What to compute in."
)
@click.option(
    "--quantize",
    "quantisation",
    type=click.Choice(["int8", "int4"]),
    help="Keep the layers' matrices in fewer bits: int8 decodes about 1.9 times as fast on CPUs, int4 holds three "
    "times the layers but is slow at prompts. On NVIDIA GPUs too. Clients see a profile of its own.",
)
@click.option(
    "--profile",
    type=click.Choice(["exact", "fast"]),
    help="exact: a token's bits depend on nothing that is computed beside it, so that no loss of a node changes a "
    "token; prompts cost more. Default: exact for bf16 on CPUs, else fast.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True)
@listen_option(
    help="Where to serve. Default: any free port, of this machine alone with --network loopback, else of all "
    "interfaces.",
)
@click.option("--advertise", type=ADDRESS, help="The address that others dial, when it is not the one listened on.")
@click.option(
    "--torrent-port", type=click.IntRange(0, 65535), default=0, show_default=True, help="BitTorrent's port; 0: any."
)
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=0,
    envvar="SWARM_THREADS",
    show_envvar=True,
    help="Threads to compute with; 0: all cores.",
)
@click.option(
    "--cache-budget",
    type=SIZE,
    default=0,
    help="For all sessions' KV caches; 0: a quarter of the free memory.",
)
@click.option(
    "--memory",
    "memory_bytes",
    type=SIZE,
    default=0,
    help="For weights and caches; a quarter is kept for caches. 0: what is free.",
)
@click.option(
    "--disk",
    "disk_bytes",
    type=SIZE,
    default=0,
    help="The most that the release may take on disk; pieces of layers no longer hosted go. Of the nodes in one data "
    "folder the smallest counts. 0: unbounded.",
)
@click.option(
    "--relay",
    "relay_rate",
    type=RelayRateType(),
    default="4MB/s",
    show_default=True,
    help="Pass on so much for nodes that nobody can dial, encrypted from end to end; `off`: nothing.",
)
@click.option("--max-sessions", type=click.IntRange(1), default=64, show_default=True, help="Sessions at a time.")
@click.option(
    "--drain-timeout",
    "drain_timeout_s",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long running sessions may go on once the node is told to stop; then other nodes take them over.",
)
@click.option(
    "--upload-rate",
    type=RATE,
    default=0,
    help="What the node may send: bounds BitTorrent, and what it says that it can pass on. 0: unbounded.",
)
@click.option("--download-rate", type=RATE, default=0, help="Bounds BitTorrent; 0: unbounded.")
@torrent_settings_option
@timeout_option(120.0, "How long to wait for metadata, or for a next piece.")
@node_options
@admission_options
@data_dir_option("Where fetched bytes and the node's key are kept (default: the user's data folder).")
@click.option("--dry-run", is_flag=True, help="Say what it would host and why, and end.")
@json_option
def start(
    magnet: str,
    spans: tuple[Span, ...],
    trunks: tuple[Span, ...],
    experts: tuple[str, ...],
    dtype: str,
    quantisation: str | None,
    profile: str | None,
    device: str,
    listen: Address | None,
    advertise: Address | None,
    torrent_port: int,
    threads: int,
    cache_budget: int,
    memory_bytes: int,
    disk_bytes: int,
    relay_rate: int,
    max_sessions: int,
    drain_timeout_s: float,
    upload_rate: int,
    download_rate: int,
    torrent_settings: tuple[str, ...],
    timeout_s: float,
    reach: Reach,
    admission: Admission,
    data_dir: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fetch part of the model that MAGNET names, serve it, and keep seeding it.

    Other machines' prompts pass through this node in a form that its owner could read; see the README.

    \b
    Example:
      swarm node start 'magnet:?xt=urn:btih:…' --layers 0:8 --listen 0.0.0.0:7000
    """
    import platformdirs

    from node.config import NodeConfig

    note_logs(WAITING_LOG)
    read_magnet(magnet)  # before torch is loaded, which takes seconds
    config = NodeConfig(
        magnet=magnet,
        data_dir=data_dir or Path(platformdirs.user_data_dir("mistral-swarm")),
        spans=spans,
        trunks=trunks,
        experts=tuple(expert for text in experts for expert in parse_experts(text)),
        profile=Profile(dtype, quantisation or ""),
        exact=None if profile is None else profile == "exact",
        device=device,
        listen=listen,
        advertise=advertise,
        network=reach.network,
        bootstrap=reach.bootstrap,
        peers=reach.peers,
        torrent_port=torrent_port,
        threads=threads,
        cache_budget_bytes=cache_budget,
        memory_bytes=memory_bytes,
        disk_bytes=disk_bytes,
        relay_rate=relay_rate,
        max_sessions=max_sessions,
        drain_timeout_s=drain_timeout_s,
        upload_rate=upload_rate,
        download_rate=download_rate,
        torrent_settings=torrent_settings,
        metadata_timeout_s=timeout_s,
        stall_timeout_s=timeout_s,
        admission=admission,
    )
    asyncio.run(_propose(config, as_json) if dry_run else _serve(config, as_json))


@node.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--preset", default="demo", show_default=True, help="Which small model; an unknown name lists them.")
@click.option(
    "--format", "format_", type=click.Choice(["hf", "mistral", "mistral-pth"]), default="hf", show_default=True
)
@click.option("--seed", type=int, default=0, show_default=True)
def synthesize(folder: Path, preset: str, format_: str, seed: int) -> None:
    """Write a small release of random weights into FOLDER: real formats and tokenizer, no knowledge.

    \b
    Example:
      swarm node synthesize ./demo-mixtral && swarm release create ./demo-mixtral
    """
    from node.weights import PRESETS, write_preset

    if preset not in PRESETS:
        raise BadArgument(f"there is no preset {preset!r}; choose one of {', '.join(PRESETS)}")
    if folder.exists() and any(folder.iterdir()):
        raise BadArgument(f"{folder} is not empty; name a new folder")
    write_preset(preset, folder, format=format_, seed=seed)
    click.echo(str(folder))


async def _propose(config: NodeConfig, as_json: bool) -> None:
    """Print what the node would host: layers on stdout, why on stderr."""
    from node.app import NodeApp

    fields = await NodeApp(config, lambda event, fields: None).propose()
    if as_json:
        print_event(EVENTS, "placement", **fields)
        return
    tell_placement(fields)
    parts = (("--layers", "spans"), ("--trunk", "trunks"), ("--experts", "experts"))
    click.echo(" ".join(f"{option} {part}" for option, name in parts for part in fields.get(name, ())))


async def _serve(config: NodeConfig, as_json: bool) -> None:
    """Run the node until SIGINT or SIGTERM; a second one ends the process at once. SIGUSR1 stops it too, and hands its
    sessions over rather than let them end here.
    """
    from node.app import NodeApp

    stop, hand_over = asyncio.Event(), asyncio.Event()
    ready = has_metadata = False
    meter = ProgressMeter("fetching", show=lambda n_pieces: counted(round(n_pieces), "piece"))
    showing = contextlib.ExitStack()

    def on_event(event: str, fields: dict[str, Any]) -> None:
        nonlocal ready, has_metadata
        ready = ready or event == "ready"
        has_metadata = has_metadata or event == "metadata"
        if as_json:
            print_event(EVENTS, event, **fields)
        elif event == "progress":
            meter.update(fields["pieces_here"], progress_words(fields), total=fields["pieces_planned"])
        else:
            if event == "layout":
                showing.enter_context(meter)
            elif event in ("ready", "draining", "handing_over", "stopped"):
                showing.close()
            tell(event, fields)

    def on_signal() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()
        note("stopping; once more to stop at once")

    def on_hand_over() -> None:
        hand_over.set()
        stop.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, on_hand_over)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    with showing:
        await NodeApp(config, on_event).run(stop, hand_over)
    if not ready:
        raise Interrupted(
            "interrupted before the node was ready; what it fetched is kept, the same command goes on from there"
            if has_metadata
            else "interrupted before anything was fetched: nobody had given the release's metadata yet"
        )
