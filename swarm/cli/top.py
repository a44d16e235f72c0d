"""`swarm top`: the nodes of a release, looked at again and again: layers, sessions, speed, and where holes are."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from swarm.cli.console import note, out_console, print_event, print_json
from swarm.cli.generation import open_client
from swarm.cli.options import Reach, client_options, json_option, magnet_argument, node_options, publisher_option
from swarm.cli.status import nobody_found, waiting_for_nodes

if TYPE_CHECKING:
    from rich.live import Live

    from swarm.cli.top_gateway import Gateway
    from swarm.cli.top_look import Look
    from swarm.client import Client
    from swarm.client.admission import Admission

TOP_SCHEMA = "swarm.top/1"
FIRST_LOOK_PAUSE_S = 0.5


@click.command(epilog="Example: swarm top 'magnet:?xt=urn:btih:…' --interval 2")
@magnet_argument()
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.2),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait between looks.",
)
@click.option("--once", is_flag=True, help="Look once, print it, and end; with 4 when there are no nodes.")
@click.option(
    "--gateway",
    "gateway_url",
    envvar="SWARM_GATEWAY",
    show_envvar=True,
    metavar="URL",
    help="A gateway of this swarm: adds the requests that it runs and the tokens/s that it gives.",
)
@click.option(
    "--api-key",
    envvar="SWARM_API_KEY",
    show_envvar=True,
    metavar="KEY",
    help="The key that the gateway asks for, if it does.",
)
@node_options
@client_options
@publisher_option
@json_option
def top(
    magnet: str,
    interval_s: float,
    once: bool,
    gateway_url: str | None,
    api_key: str | None,
    reach: Reach,
    timeout_s: float,
    data_dir: Path | None,
    admission: Admission,
    as_json: bool,
) -> None:
    """Watch the nodes of a release: state, layers, sessions that they can still take, speed, coverage.

    A node's tok/s is what it can do for one session, by the time that its layers took lately; the swarm's is that of
    its best route. What is generated at this moment only a gateway knows: see --gateway. Ctrl-C ends it.
    """
    from swarm.cli.top_gateway import Gateway

    gateway = None if gateway_url is None else Gateway(gateway_url, api_key)
    with open_client(magnet, reach, timeout_s, data_dir, admission.publishers) as client:
        if once:
            show_once(first_look(client, gateway, timeout_s), timeout_s, magnet, as_json)
            return
        with contextlib.suppress(KeyboardInterrupt):  # the way out of a view that has no other end
            watch(client, gateway, interval_s, as_json)


def first_look(client: Client, gateway: Gateway | None, timeout_s: float) -> Look:
    """The first look that finds a node, or the last one before timeout_s."""
    from swarm.cli.top_look import look_at

    deadline_s = time.monotonic() + timeout_s
    with waiting_for_nodes(client.release.name, timeout_s):
        while not (look := look_at(client, gateway)).seen.nodes and time.monotonic() < deadline_s:
            pause(min(FIRST_LOOK_PAUSE_S, max(0.0, deadline_s - time.monotonic())))
    return look


def show_once(look: Look, timeout_s: float, magnet: str, as_json: bool) -> None:
    """Print the look. Raises: NoNodesFound after an empty one."""
    from swarm.cli.top_look import look_fields
    from swarm.cli.top_view import view

    if as_json:
        print_json(TOP_SCHEMA, look_fields(look))
    elif look.seen.nodes:
        out_console().print(view(look))
    if not look.seen.nodes:
        raise nobody_found(look.seen, timeout_s, magnet)


def watch(client: Client, gateway: Gateway | None, interval_s: float, as_json: bool) -> None:
    """Look for ever: a view in place on a terminal, one after the other elsewhere, NDJSON with --json."""
    from swarm.cli.top_look import look_fields
    from swarm.cli.top_view import view

    if as_json:
        for look in looks(client, gateway, interval_s):
            print_event(TOP_SCHEMA, "look", **look_fields(look))
    elif sys.stdout.isatty():
        with live_view() as live:
            for look in looks(client, gateway, interval_s):
                live.update(view(look), refresh=True)
    else:
        note("stdout is no terminal: one view after the other follows; --once prints one and ends")
        for look in looks(client, gateway, interval_s):
            out_console().print(view(look))
            sys.stdout.flush()


def looks(client: Client, gateway: Gateway | None, interval_s: float) -> Iterator[Look]:
    from swarm.cli.top_look import look_at

    while True:
        yield look_at(client, gateway)
        pause(interval_s)


def live_view() -> Live:
    """A view on the terminal's other screen: what was there before is there again afterwards."""
    from rich.live import Live

    return Live(console=out_console(), screen=True, auto_refresh=False, vertical_overflow="ellipsis")


def pause(seconds: float) -> None:
    time.sleep(seconds)
