"""`swarm demo`: a whole swarm on this machine, by the same commands that a volunteer would type."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from swarm.cli.console import (
    format_duration,
    format_percent,
    format_size,
    note,
    out_console,
    print_event,
)
from swarm.cli.errors import missing_extra
from swarm.cli.generate import token_fields
from swarm.cli.generation import describe_generation, ended_with, generation_fields, open_client
from swarm.cli.options import Reach, json_option
from swarm.cli.processes import Child, stop_all
from swarm.terms import Span, short_id

if TYPE_CHECKING:
    from swarm.client import TokenEvent

DEMO_SCHEMA = "swarm.demo/1"
PROMPT = "A magnet link names a model, and"
N_NODES = 3

SYNTHESIZE_TIMEOUT_S = 120.0
SEED_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 180.0
"""Generous: a slow machine should see a slow demo, not a failed one. A process that dies is noticed at once."""


@dataclass(slots=True)
class DemoNode:
    """One node process and what it reported when it was ready."""

    child: Child
    span: Span
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def node_id(self) -> str:
        return next((str(event["node_id"]) for event in self.child.events if "node_id" in event), "")

    @property
    def needed_bytes(self) -> int:
        return int(self.ready.get("needed_bytes", 0))

    @property
    def fetched_bytes(self) -> int:
        return int(self.ready.get("fetched_bytes", 0))


@click.command(epilog="Example: swarm demo --max-tokens 64 --spans")
@click.option("--prompt", default=PROMPT, show_default=True, help="What to complete.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=48, show_default=True, help="The most tokens to make."
)
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Work in this folder, and keep it.")
@click.option("--spans", "shows_spans", is_flag=True, help="Show what each hop spent on each token.")
@json_option
def demo(prompt: str, max_tokens: int, keep: Path | None, shows_spans: bool, as_json: bool) -> None:
    """Run a whole swarm on this machine: make a small release, seed it, start three nodes from its magnet link, prompt.

    The model is a Mixtral of random weights, so its words mean nothing: what works is everything around them. Needs
    no network and no downloads, and removes all its files unless --keep names a folder for them.
    """
    if importlib.util.find_spec("torch") is None:
        raise missing_extra("torch")
    with working_folder(keep) as folder, interrupted_by_sigterm():
        Demo(folder, prompt, max_tokens, shows_spans, as_json).run()


class Demo:
    """One run: its children, and what it says on the way. Every child has ended when run() returns or raises."""

    def __init__(self, folder: Path, prompt: str, max_tokens: int, shows_spans: bool, as_json: bool) -> None:
        self._folder = folder
        self._prompt = prompt
        self._max_tokens = max_tokens
        self._shows_spans = shows_spans
        self._as_json = as_json
        self._children: list[Child] = []
        self._started_s = time.monotonic()

    def run(self) -> None:
        try:
            release = self._synthesize()
            magnet, total_bytes = self._seed(release)
            self._show_nodes(self._start_nodes(magnet, release), total_bytes)
            self._generate(magnet)
        finally:
            killed = stop_all(self._children)
        for child in killed:
            note(f"warning: {child.name} (pid {child.pid}) did not stop when asked, and was killed; log: {child.log}")
        self._say("stopped", f"all {len(self._children)} processes stopped after {self._elapsed()}")

    # -- the steps, in order -------------------------------------------------------------------------------------

    def _synthesize(self) -> Path:
        release = self._folder / "demo-mixtral"
        builder = self._start("synthesize", "node", "synthesize", "--preset", "demo", str(release))
        builder.wait_for_end(SYNTHESIZE_TIMEOUT_S)
        self._children.remove(builder)
        size_bytes = sum(path.stat().st_size for path in release.rglob("*") if path.is_file())
        self._say("synthesized", f"made a release of {format_size(size_bytes)}: {release}", path=str(release))
        return release

    def _seed(self, release: Path) -> tuple[str, int]:
        where = ("--network", "loopback", "--listen", "127.0.0.1:0")
        seeder = self._start("seed", "release", "seed", str(release), "--json", *where)
        seeding = seeder.wait_for("seeding", SEED_TIMEOUT_S)
        magnet = str(seeding["magnet"])
        self._say("seeding", f"seeding it: {magnet}", magnet=magnet, pid=seeder.pid)
        return magnet, int(seeding["total_bytes"])

    def _start_nodes(self, magnet: str, release: Path) -> list[DemoNode]:
        """Three nodes that know nothing but the magnet link; returns when all of them serve."""
        from swarm.release import read_folder_layout

        nodes = []
        for number, span in enumerate(split_layers(read_folder_layout(release).args.n_layers, N_NODES), start=1):
            data_dir = self._folder / f"node-{number}"
            where = ("--network", "loopback", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir))
            what = ("--layers", str(span), "--dtype", "fp32")
            child = self._start(f"node {number}", "node", "start", magnet, "--json", *where, *what)
            nodes.append(DemoNode(child, span))
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        for node in nodes:
            node.ready = node.child.wait_for("ready", deadline_s - time.monotonic())
            words = f"{node.child.name} serves layers {node.span} after {self._elapsed()}"
            self._say("node", words, node_id=node.node_id, layers=str(node.span), pid=node.child.pid, ready=node.ready)
        return nodes

    def _show_nodes(self, nodes: list[DemoNode], total_bytes: int) -> None:
        if self._as_json:
            return
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("node", "id", "layers", "pid", "needs", "fetched", "of the release"):
            table.add_column(heading, justify="left" if heading in ("node", "id", "layers") else "right", no_wrap=True)
        for node in nodes:
            table.add_row(
                node.child.name,
                short_id(node.node_id),
                str(node.span),
                str(node.child.pid),
                format_size(node.needed_bytes),
                format_size(node.fetched_bytes),
                format_percent(node.fetched_bytes, int(node.ready.get("release_bytes", total_bytes))),
            )
        out_console().print(table)

    def _generate(self, magnet: str) -> None:
        from swarm.sampling import SamplingParams

        params = SamplingParams(max_tokens=self._max_tokens, temperature=0.0)
        events: list[TokenEvent] = []
        with open_client(magnet, Reach("loopback"), READY_TIMEOUT_S, self._folder / "client") as client:
            stream = client.stream(self._prompt, params)
            if not self._as_json:
                click.echo(f"\n{self._prompt}", nl=False)
            with ended_with(stream):
                for event in stream:
                    events.append(event)
                    if self._as_json:
                        print_event(DEMO_SCHEMA, "token", **token_fields(event))
                    else:
                        click.echo(event.text, nl=False)
                        sys.stdout.flush()
            result = stream.result
        if self._as_json:
            print_event(DEMO_SCHEMA, "done", **generation_fields(result), hops=mean_hop_times(events))
            return
        click.echo("\n")
        click.echo(describe_generation(result))
        for hop in mean_hop_times(events):
            click.echo(f"  {short_id(hop['node_id'])}  {format_duration(hop['mean_s'])} a token")
        if self._shows_spans:
            print_spans(events)

    # -- helpers -------------------------------------------------------------------------------------------------

    def _start(self, name: str, *arguments: str) -> Child:
        child = Child(name, arguments, self._folder / f"{name.replace(' ', '-')}.log")
        self._children.append(child)
        return child

    def _say(self, event: str, words: str, **fields: Any) -> None:
        if self._as_json:
            print_event(DEMO_SCHEMA, event, **fields, elapsed_s=time.monotonic() - self._started_s)
        else:
            note(words)

    def _elapsed(self) -> str:
        return format_duration(time.monotonic() - self._started_s)


def split_layers(n_layers: int, n_nodes: int) -> list[Span]:
    """Consecutive spans of nearly equal length, at most one per layer."""
    n_spans = min(n_layers, n_nodes)
    bounds = [n_layers * i // n_spans for i in range(n_spans + 1)]
    return [Span(a, b) for a, b in itertools.pairwise(bounds)]


def mean_hop_times(events: list[TokenEvent]) -> list[dict[str, Any]]:
    """Per node, the mean seconds of one decoding step: the first event's is the whole prompt's, and is left out."""
    decoded = events[1:] or events
    spent: dict[str, list[float]] = {}
    for event in decoded:
        for hop in event.hop_times:
            spent.setdefault(hop.node_id, []).append(hop.queue_s + hop.compute_s)
    return [{"node_id": node_id, "mean_s": sum(times) / len(times)} for node_id, times in spent.items()]


def print_spans(events: list[TokenEvent]) -> None:
    """A row per token: what each hop spent on it, and what was spent between them."""
    from rich.table import Table

    if not events:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("token", *(short_id(hop.node_id) for hop in events[-1].hop_times), "between", "in all"):
        table.add_column(heading, justify="right", no_wrap=True)
    before_s = 0.0
    for event in events:
        step_s, before_s = event.elapsed_s - before_s, event.elapsed_s
        hops_s = [hop.queue_s + hop.compute_s for hop in event.hop_times]
        cells = [format_duration(seconds) for seconds in (*hops_s, max(0.0, step_s - sum(hops_s)), step_s)]
        table.add_row(str(event.index), *cells)
    out_console().print(table)


@contextlib.contextmanager
def working_folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="swarm-demo-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextlib.contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does, so that no child outlives it."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
