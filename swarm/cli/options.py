"""Flags that several verbs share, so that one flag means one thing everywhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from swarm.errors import BadArgument
from swarm.terms import Address

if TYPE_CHECKING:
    from swarm.torrent import TorrentConfig

Verb = TypeVar("Verb", bound=Callable[..., Any])

NETWORKS = ("loopback", "lan", "wan")


class AddressType(click.ParamType[Address]):
    """HOST:PORT."""

    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, Address):
            return value
        try:
            return Address.parse(value)
        except BadArgument as error:
            self.fail(error.message, param, ctx)


ADDRESS = AddressType()


@dataclass(frozen=True, slots=True)
class Reach:
    """How far this command looks for others, and whom it knows already.

    network: `loopback` (this machine), `lan` (this site) or `wan` (anyone). bootstrap: nodes of the DHT to ask first.
    peers: for the release verbs BitTorrent counterparts, for those that talk to nodes the nodes' own addresses.
    """

    network: str
    bootstrap: tuple[Address, ...] = ()
    peers: tuple[Address, ...] = ()

    def torrent_config(self, listen: Address | None = None) -> TorrentConfig:
        """The torrent session's settings for this network; `listen` None means any free port of its preset's host."""
        from swarm.torrent import TorrentConfig

        presets = {"loopback": TorrentConfig.loopback, "lan": TorrentConfig.lan, "wan": TorrentConfig.wan}
        overrides: dict[str, Any] = {"dht_bootstrap": self.bootstrap} if self.bootstrap else {}
        if listen is not None:
            if listen.is_loopback and self.network != "loopback":
                raise BadArgument(
                    f"--listen {listen} is for this machine only, which --network {self.network} is not; write "
                    f"--network loopback with it, or --listen 0.0.0.0:{listen.port}"
                )
            overrides["listen"] = listen
        return presets[self.network](**overrides)


def reach_options(peer_help: str) -> Callable[[Verb], Verb]:
    """--network, --bootstrap and --peer, handed to the verb as one `reach: Reach`."""

    def decorate(verb: Verb) -> Verb:
        @click.option(
            "--network",
            type=click.Choice(NETWORKS),
            default="wan",
            envvar="SWARM_NETWORK",
            show_default=True,
            help="How far to look: this machine, this site, or anyone.",
        )
        @click.option(
            "--bootstrap",
            type=ADDRESS,
            multiple=True,
            envvar="SWARM_BOOTSTRAP",
            help="A DHT node to start from (repeatable).",
        )
        @click.option("--peer", "peers", type=ADDRESS, multiple=True, envvar="SWARM_PEER", help=peer_help)
        @functools.wraps(verb)
        def with_reach(
            *args: Any, network: str, bootstrap: tuple[Address, ...], peers: tuple[Address, ...], **rest: Any
        ) -> Any:
            return verb(*args, reach=Reach(network, tuple(bootstrap), tuple(peers)), **rest)

        return with_reach  # type: ignore[return-value]

    return decorate


seeder_options = reach_options("A BitTorrent peer that has the release (repeatable).")
node_options = reach_options("A node to ask directly, as `swarm node start` prints it (repeatable).")


def json_option(verb: Verb) -> Verb:
    """--json, handed to the verb as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for programs.")(verb)


def timeout_option(verb: Verb) -> Verb:
    """--timeout, handed to the verb as `timeout_s`."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0, min_open=True),
        default=60.0,
        envvar="SWARM_TIMEOUT",
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for metadata and nodes.",
    )(verb)


def data_dir_option(verb: Verb) -> Verb:
    """--data-dir, handed to the verb as `data_dir`, None for the default."""
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="SWARM_DATA_DIR",
        help="Where fetched bytes are kept (default: the user's data folder).",
    )(verb)
