"""`swarm status`: which nodes serve a release, and which of its layers nobody serves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swarm.cli.console import format_percent, format_size, note, noted_after, out_console, print_json
from swarm.cli.generation import open_client
from swarm.cli.options import Reach, client_options, json_option, magnet_argument, node_options, publisher_option
from swarm.errors import NoNodesFound
from swarm.facts import NodeState
from swarm.routing import describe_missing, layer_ranges
from swarm.terms import counted, short_id

if TYPE_CHECKING:
    from rich.table import Table

    from swarm.client import SwarmStatus
    from swarm.client.admission import Admission
    from swarm.facts import NodeFact

STATUS_SCHEMA = "swarm.status/1"
ASK_AGAIN_S = 0.5
QUIET_S = 2.0
"""How long nodes are waited for before anybody is told of it: most answer sooner."""
STRIP_WIDTH = 64
"""Most columns of the coverage strip: with more layers a column stands for several, and shows the worst of them."""


@click.command(epilog="Example: swarm status 'magnet:?xt=urn:btih:…' --json")
@magnet_argument()
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
    with (
        open_client(magnet, reach, timeout_s, data_dir, admission.publishers) as client,
        waiting_for_nodes(client.release.name, deadline_s - time.monotonic()),
    ):
        while not (seen := client.status()).nodes and time.monotonic() < deadline_s:
            time.sleep(ASK_AGAIN_S)
    if as_json:
        print_json(STATUS_SCHEMA, status_fields(seen))
    elif seen.nodes:
        print_status(seen)
    if not seen.nodes:
        raise nobody_found(seen, timeout_s, magnet)


def waiting_for_nodes(name: str, left_s: float) -> contextlib.AbstractContextManager[None]:
    """Says what is waited for and until when, unless the block ends soon."""
    return noted_after(QUIET_S, f"waiting up to {max(0.0, left_s - QUIET_S):.0f} s more for nodes of {name} to answer")


def nobody_found(seen: SwarmStatus, timeout_s: float, magnet: str) -> NoNodesFound:
    from swarm.torrent import magnet_of

    return NoNodesFound(
        f"no node of {seen.name} was found within {timeout_s:g} s; start one with `swarm node start MAGNET`, name "
        "one with --peer HOST:PORT, or use a link that says whom to ask first, as `swarm release seed` prints it "
        "(nodes that were started with --network loopback are found with that only)"
        f"{magnet_of(magnet).cut_hint}"
    )


def status_fields(seen: SwarmStatus) -> dict[str, Any]:
    return {
        "name": seen.name,
        "infohash": seen.infohash,
        "n_layers": seen.n_layers,
        "hosts_per_layer": list(seen.hosts_per_layer),
        "missing_layers": list(seen.missing_layers),
        "hosts_per_expert": [list(counts) for counts in seen.hosts_per_expert],
        "missing_experts": [f"{expert.layer_idx}:{expert.expert_idx}" for expert in seen.missing_experts],
        "nodes": [node_fields(fact) for fact in seen.nodes],
    }


def node_fields(fact: NodeFact) -> dict[str, Any]:
    return {
        "node_id": fact.node_id,
        "state": fact.state.value,
        "spans": [str(span) for span in fact.spans],
        "loaded_spans": [str(span) for span in fact.loaded_spans],
        "trunks": [str(span) for span in fact.trunks],
        "loaded_trunks": [str(span) for span in fact.loaded_trunks],
        "experts": [str(experts) for experts in fact.experts],
        "loaded_experts": [str(experts) for experts in fact.loaded_experts],
        "expert_wait_s": fact.expert_wait_s,
        "heat": {str(heat.layer_idx): [round(share / 255, 3) for share in heat.shares] for heat in fact.heat},
        "address": str(fact.address),
        "reachability": fact.reachability.value,
        "relay": fact.relay,
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
    if any(fact.trunks or fact.experts for fact in seen.nodes):
        for line in expert_lines(seen):
            click.echo(line)
    if seen.missing_layers:
        click.echo(f"nobody serves layers {layer_ranges(seen.missing_layers)}")
        if seen.missing_experts:
            click.echo(describe_missing(seen.missing_experts))
        options = seen.mending_options
        note(f"mend it with: swarm node start MAGNET {options}" if options else "who hosts the trunk is joining: wait")
    else:
        click.echo(f"every layer is served, by {counted(min(seen.hosts_per_layer), 'node')} at least")
    profiles = sorted({str(fact.profile.base) for fact in seen.nodes})
    if len(profiles) > 1:
        click.echo(
            f"counted are the nodes of one profile, since a session stays within one; here are {', '.join(profiles)}"
        )


def expert_lines(seen: SwarmStatus) -> Iterator[str]:
    """How many nodes answer for each expert, a column a layer: `expert 3  11211.`"""
    for expert_idx, counts in enumerate(zip(*seen.hosts_per_expert, strict=True)):
        yield f"expert {expert_idx}  {coverage_strip(counts)}"


def node_table(nodes: tuple[NodeFact, ...]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    right = ("free", "has", "fetched", "ratio")
    for heading in ("node", "state", "hosts", "address", "profile", *right):
        table.add_column(heading, justify="right" if heading in right else "left", no_wrap=True)
    for fact in sorted(nodes, key=lambda fact: (fact.spans, fact.node_id)):
        table.add_row(
            short_id(fact.node_id),
            fact.state.value,
            layers_words(fact),
            fact.address.short,
            str(fact.profile),
            str(fact.free_sessions) if fact.takes_sessions else "-",
            holding_words(fact),
            format_size(fact.fetched_bytes),
            "-" if fact.share_ratio is None else f"{fact.share_ratio:.2f}",
        )
    return table


def layers_words(fact: NodeFact) -> str:
    """What the node hosts, and while it is joining what of that it serves already: `0:8 (0:3 loaded)`. Trunks and
    experts by their names: `trunk 0:16 experts 0-15:5,6`.
    """
    words = hosting_words(fact.spans, fact.trunks, fact.experts) or "-"
    loaded = hosting_words(fact.loaded_spans, fact.loaded_trunks, fact.loaded_experts)
    return f"{words} ({loaded} loaded)" if fact.state is NodeState.JOINING and loaded else words


def hosting_words(spans: Iterable[object], trunks: Iterable[object], experts: Iterable[object]) -> str:
    """Spans as they are, the others with what they are before them; `` for nothing."""
    words = [str(span) for span in spans]
    words += [f"trunk {span}" for span in trunks] + [f"experts {one}" for one in experts]
    return " ".join(words)


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
