"""`swarm status`: which nodes serve a release, and which of its layers nobody serves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swarm.cli.console import format_percent, format_size, note, out_console, print_json
from swarm.cli.generation import open_client
from swarm.cli.options import Reach, client_options, json_option, node_options, publisher_option
from swarm.errors import NoNodesFound
from swarm.facts import NodeState
from swarm.routing import layer_ranges
from swarm.terms import Span, merge_spans, short_id

if TYPE_CHECKING:
    from rich.table import Table

    from swarm.client import SwarmStatus
    from swarm.client.admission import Admission
    from swarm.facts import NodeFact

STATUS_SCHEMA = "swarm.status/1"
ASK_AGAIN_S = 0.5
STRIP_WIDTH = 64
"""Most columns of the coverage strip: with more layers a column stands for several, and shows the worst of them."""


@click.command(epilog="Example: swarm status 'magnet:?xt=urn:btih:…' --json")
@click.argument("magnet")
@node_options
@client_options
@publisher_option
@json_option
def status(
    magnet: str, reach: Reach, timeout_s: float, data_dir: Path | None, admission: Admission, as_json: bool
) -> None:
    """Show the nodes of a release: state, layers, address, profile, how much of that each has, how much it fetched for
    it in this run (the rest was on its machine), and its share ratio: bytes given by bytes taken, over all runs.

    Exits with 4 when there are no nodes.
    """
    deadline_s = time.monotonic() + timeout_s
    with open_client(magnet, reach, timeout_s, data_dir, admission.publishers) as client:
        while not (seen := client.status()).nodes and time.monotonic() < deadline_s:
            time.sleep(ASK_AGAIN_S)
    if as_json:
        print_json(STATUS_SCHEMA, status_fields(seen))
    elif seen.nodes:
        print_status(seen)
    if not seen.nodes:
        raise NoNodesFound(
            f"no node of {seen.name} was found within {timeout_s:g} s; start one with `swarm node start MAGNET`, name "
            "one with --peer HOST:PORT, or use a link that says whom to ask first, as `swarm release seed` prints it"
        )


def status_fields(seen: SwarmStatus) -> dict[str, Any]:
    return {
        "name": seen.name,
        "infohash": seen.infohash,
        "n_layers": seen.n_layers,
        "hosts_per_layer": list(seen.hosts_per_layer),
        "missing_layers": list(seen.missing_layers),
        "nodes": [node_fields(fact) for fact in seen.nodes],
    }


def node_fields(fact: NodeFact) -> dict[str, Any]:
    return {
        "node_id": fact.node_id,
        "state": fact.state.value,
        "spans": [str(span) for span in fact.spans],
        "loaded_spans": [str(span) for span in fact.loaded_spans],
        "address": str(fact.address),
        "profile": str(fact.profile),
        "free_sessions": fact.free_sessions,
        "layer_time_s": fact.layer_time_s,
        "needed_bytes": fact.needed_bytes,
        "fetched_bytes": fact.fetched_bytes,
        "found_bytes": fact.found_bytes,
        "uploaded_bytes": fact.uploaded_bytes,
        "downloaded_bytes": fact.downloaded_bytes,
        "share_ratio": None if fact.share_ratio is None else round(fact.share_ratio, 4),
        "version": fact.version,
    }


def print_status(seen: SwarmStatus) -> None:
    click.echo(f"{seen.name}  {seen.infohash}")
    out_console().print(node_table(seen.nodes))
    click.echo(f"layers  {coverage_strip(seen.hosts_per_layer)}  {seen.n_layers}")
    if seen.missing_layers:
        click.echo(f"nobody serves layers {layer_ranges(seen.missing_layers)}")
        spans = merge_spans([Span(layer_idx, layer_idx + 1) for layer_idx in seen.missing_layers])
        note(f"mend it with: swarm node start MAGNET {' '.join(f'--layers {span}' for span in spans)}")
    else:
        fewest = min(seen.hosts_per_layer)
        click.echo(f"every layer is served, by {fewest} node{'s' if fewest > 1 else ''} at least")


def node_table(nodes: tuple[NodeFact, ...]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    right = ("free", "has", "fetched", "ratio")
    for heading in ("node", "state", "layers", "address", "profile", *right):
        table.add_column(heading, justify="right" if heading in right else "left", no_wrap=True)
    for fact in sorted(nodes, key=lambda fact: (fact.spans, fact.node_id)):
        table.add_row(
            short_id(fact.node_id),
            fact.state.value,
            layers_words(fact),
            str(fact.address),
            str(fact.profile),
            str(fact.free_sessions),
            holding_words(fact),
            format_size(fact.fetched_bytes),
            "-" if fact.share_ratio is None else f"{fact.share_ratio:.2f}",
        )
    return table


def layers_words(fact: NodeFact) -> str:
    """What the node hosts, and while it is joining what of that it serves already: `0:8 (0:3 loaded)`."""
    spans = " ".join(str(span) for span in fact.spans) or "-"
    if fact.state is not NodeState.JOINING or not fact.loaded_spans:
        return spans
    return f"{spans} ({' '.join(str(span) for span in fact.loaded_spans)} loaded)"


def holding_words(fact: NodeFact) -> str:
    """How much of what it hosts the node has. One that serves has it all, whoever fetched it."""
    if not fact.needed_bytes:
        return "-"
    has_bytes = min(fact.fetched_bytes + fact.found_bytes, fact.needed_bytes)
    has_bytes = has_bytes if fact.state is NodeState.JOINING else fact.needed_bytes
    return f"{format_percent(has_bytes, fact.needed_bytes)} of {format_size(fact.needed_bytes)}"


def coverage_strip(hosts_per_layer: tuple[int, ...], width: int = STRIP_WIDTH) -> str:
    """One character a layer: how many nodes serve it, `.` for none and `+` for ten or more."""
    per_column = -(-len(hosts_per_layer) // width)
    columns = [hosts_per_layer[i : i + per_column] for i in range(0, len(hosts_per_layer), per_column or 1)]
    return "".join(host_mark(min(column)) for column in columns)


def host_mark(n_hosts: int) -> str:
    return "." if n_hosts == 0 else str(n_hosts) if n_hosts < 10 else "+"
