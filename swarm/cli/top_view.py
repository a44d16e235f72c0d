"""How `swarm top` draws a look: the swarm in a line, its layers as a strip, its nodes as a table."""

from __future__ import annotations

import time
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from swarm.cli.console import format_duration
from swarm.cli.status import coverage_strip, holding_words, layers_words
from swarm.cli.top_look import Look, node_tokens_per_s, said_s_ago
from swarm.facts import NodeFact, NodeState
from swarm.routing import layer_ranges
from swarm.terms import counted, short_id

STATE_STYLES = {NodeState.SERVING: "green", NodeState.JOINING: "yellow", NodeState.DRAINING: "magenta"}
RIGHT = ("sessions", "tok/s", "has", "said")


def view(look: Look) -> RenderableType:
    lines = [headline(look), strip_line(look), route_line(look)]
    if look.gateway is not None:
        lines.append(gateway_line(look))
    return Group(*lines, Text(), node_table(look) if look.seen.nodes else Text("no node is known yet", style="dim"))


def headline(look: Look) -> Text:
    n_nodes, serving = len(look.seen.nodes), sum(f.state is NodeState.SERVING for f in look.seen.nodes)
    line = Text.assemble((look.seen.name, "bold"), f"  {look.seen.infohash[:12]}  ")
    line.append(f"{counted(n_nodes, 'node')}, {serving} serving")
    line.append(f"  {time.strftime('%H:%M:%S', time.localtime(look.at_s))}", style="dim")
    return line


def strip_line(look: Look) -> Text:
    """A character a layer, as `swarm status` writes it: holes in red, layers that hang on one node in yellow."""
    line = Text("layers  ")
    for mark, run in groupby(coverage_strip(look.seen.hosts_per_layer)):
        style = "bold white on red" if mark == "." else "yellow" if mark == "1" else "green"
        line.append("".join(run), style=style)
    line.append(f"  {look.seen.n_layers}")
    if look.seen.missing_layers:
        line.append(f"  nobody serves {layer_ranges(look.seen.missing_layers)}", style="bold red")
    return line


def route_line(look: Look) -> Text:
    if look.route is None:
        return Text.assemble("route   ", ("none: no session can begin", "red"))
    speed = f"{look.tokens_per_s:.1f} tok/s for one session" if look.tokens_per_s else "speed not measured yet"
    return Text(f"route   {look.route}  {speed}, room for {counted(look.free_sessions, 'more session')}")


def gateway_line(look: Look) -> Text:
    gateway = look.gateway
    assert gateway is not None
    if gateway.fault:
        return Text.assemble("gateway ", (gateway.fault, "red"))
    rate = "" if gateway.tokens_per_s is None else f", {gateway.tokens_per_s:.1f} tok/s now"
    return Text(f"gateway {gateway.running} running, {gateway.waiting} waiting{rate}")


def node_table(look: Look) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("node", "state", "layers", "address", "profile", *RIGHT):
        table.add_column(heading, justify="right" if heading in RIGHT else "left", no_wrap=True)
    for fact in sorted(look.seen.nodes, key=lambda fact: (fact.spans, fact.node_id)):
        table.add_row(*cells(fact, look.at_s))
    return table


def cells(fact: NodeFact, now_s: float) -> tuple[str | Text, ...]:
    tokens_per_s, is_serving = node_tokens_per_s(fact), bool(fact.served_spans or fact.served_trunks)
    return (
        short_id(fact.node_id),
        Text(fact.state.value, style=STATE_STYLES[fact.state]),
        layers_words(fact),
        fact.address.short,
        str(fact.profile),
        ("full" if not fact.free_sessions else f"{fact.free_sessions} free") if is_serving else "-",
        f"{tokens_per_s:.1f}" if tokens_per_s else "-",
        holding_words(fact),
        f"{format_duration(said_s_ago(fact, now_s))} ago",
    )
