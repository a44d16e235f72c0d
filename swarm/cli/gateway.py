"""`swarm gateway`: one or several releases over HTTP, for people and their tools."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swarm.cli.console import note, print_event
from swarm.cli.links import read_magnet
from swarm.cli.local_swarm import release_or_embedded
from swarm.cli.options import (
    EMBEDDED,
    Reach,
    client_options,
    json_option,
    listen_option,
    magnet_argument,
    node_options,
    publisher_option,
)
from swarm.errors import BadArgument
from swarm.terms import Address

if TYPE_CHECKING:
    from swarm.client.admission import Admission

GATEWAY_SCHEMA = "swarm.gateway/1"


@click.command(epilog="Example: swarm gateway demo   or   swarm gateway 'magnet:?xt=urn:btih:…' --api-key …")
@magnet_argument(name="magnets", nargs=-1, required=True, takes_demo=True)
@listen_option(
    default="127.0.0.1:8000",
    envvar="SWARM_GATEWAY_LISTEN",
    show_envvar=True,
    show_default=True,
    help="Where to answer; port 0 takes any free one. Beyond this machine a key is asked for.",
)
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    envvar="SWARM_API_KEY",
    show_envvar=True,
    metavar="KEY",
    help="A key that callers must show (repeatable). Others can see flags: use the environment or --keys.",
)
@click.option(
    "--keys",
    "keys_file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="SWARM_GATEWAY_KEYS",
    show_envvar=True,
    help="A file of hashed keys, as `swarm gateway-keys add` makes it (default: that verb's own, if it is there).",
)
@click.option(
    "--host", "hosts", multiple=True, metavar="NAME", help="A name that the gateway is reached by (repeatable)."
)
@click.option("--cors", multiple=True, metavar="ORIGIN", help="Pages of this origin may call it (repeatable; *: all).")
@click.option("--rate", type=str, metavar="N/min", help="The most requests a minute of one key, such as 60/min.")
@click.option("--token-rate", type=str, metavar="N/min", help="The most tokens a minute of one key, prompts included.")
@click.option(
    "--max-concurrent", type=click.IntRange(1), default=64, show_default=True, help="Answers at a time, in all."
)
@click.option("--max-concurrent-per-key", type=click.IntRange(1), help="Answers at a time of one key.")
@click.option(
    "--ledger",
    "ledger_file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="SWARM_LEDGER",
    show_envvar=True,
    help="Where usage is kept (default: gateway-usage.sqlite in the user's data folder).",
)
@click.option("--no-ledger", is_flag=True, help="Keep no usage.")
@click.option("--drain", "drain_timeout_s", type=float, default=30.0, show_default=True, metavar="SECONDS",
              help="How long running answers may go on after SIGTERM.")  # fmt: skip
@node_options
@client_options
@publisher_option
@json_option
def gateway(
    magnets: tuple[str, ...],
    listen: Address,
    api_keys: tuple[str, ...],
    keys_file: Path | None,
    hosts: tuple[str, ...],
    cors: tuple[str, ...],
    rate: str | None,
    token_rate: str | None,
    max_concurrent: int,
    max_concurrent_per_key: int | None,
    ledger_file: Path | None,
    no_ledger: bool,
    drain_timeout_s: float,
    reach: Reach,
    timeout_s: float,
    data_dir: Path | None,
    admission: Admission,
    as_json: bool,
) -> None:
    """Serve the releases that MAGNET… name over HTTP: OpenAI's and Mistral's API under /v1, a chat at /, the swarm at
    /swarm.

    MAGNET may be `demo`: the embedded release, served by three nodes on this machine for as long as the gateway runs.
    It listens at once; /ready says 503 until every layer has a host. SIGTERM lets running answers finish.
    """
    from swarm.gateway import GatewayConfig
    from swarm.gateway.operations.ledger import default_ledger_path
    from swarm.gateway.operations.limits import LimitsConfig
    from swarm.gateway.operations.logs import log_as_json
    from swarm.gateway.server import serve

    if no_ledger and ledger_file is not None:
        raise BadArgument("--no-ledger and --ledger contradict each other; leave one out")
    if EMBEDDED in magnets and len(magnets) > 1:
        raise BadArgument(f"{EMBEDDED} brings a swarm of its own and stands alone; leave out the other releases")
    for magnet in magnets:
        if magnet != EMBEDDED:
            read_magnet(magnet)
    config = GatewayConfig(
        magnets=magnets,
        listen=listen,
        api_keys=api_keys,
        keys_file=keys_file or found_keys_file(),
        hosts=hosts,
        cors=cors,
        limits=LimitsConfig(
            requests_per_min=parse_rate("--rate", rate),
            tokens_per_min=parse_rate("--token-rate", token_rate),
            max_concurrent=max_concurrent,
            max_concurrent_per_key=max_concurrent_per_key,
        ),
        ledger_file=None if no_ledger else ledger_file or default_ledger_path(),
        drain_timeout_s=drain_timeout_s,
        network=reach.network,
        bootstrap=tuple(map(str, reach.bootstrap)),
        peers=tuple(map(str, reach.peers)),
        data_dir=data_dir,
        timeout_s=timeout_s,
        publishers=tuple(sorted(admission.publishers)),
    )

    def on_listening(url: str) -> None:
        if as_json:
            print_event(GATEWAY_SCHEMA, "listening", url=url, models=len(magnets), needs_key=config.has_keys)
        else:
            click.echo(url)
            note(f"chat at {url}/, swarm at {url}/swarm, API at {url}/v1; Ctrl-C ends it")
            if config.has_keys:
                made = (
                    f"those of {config.keys_file}"
                    if config.keys_file and not config.api_keys
                    else "those that were given"
                )
                note(f"callers must show a key, on this machine too: {made}")

    log_as_json(logging.INFO if as_json else logging.WARNING)
    with release_or_embedded(magnets[0], reach) as (magnet, its_reach):
        if magnet != magnets[0]:
            peers = tuple(map(str, its_reach.peers))
            config = dataclasses.replace(config, magnets=(magnet,), network=its_reach.network, peers=peers)
        asyncio.run(serve(config, on_listening))


def found_keys_file() -> Path | None:
    """The file that `swarm gateway-keys` writes unless told otherwise, where there is one."""
    from swarm.gateway.operations.key_file import default_keys_path

    return default_keys_path() if default_keys_path().is_file() else None


def parse_rate(flag: str, text: Any) -> float | None:
    """`60/min` -> 60.0; a bare number counts by the minute as well. Raises: BadArgument."""
    if text is None:
        return None
    number, _, unit = str(text).partition("/")
    per = {"": 1.0, "min": 1.0, "minute": 1.0, "s": 60.0, "h": 1 / 60}.get(unit.strip())
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if per is None or not 0 < value < float("inf"):
        raise BadArgument(f"{flag} is {text!r}; write a number and its unit, such as 60/min")
    return value * per
