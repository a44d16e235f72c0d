"""Flags that several verbs share, so that one flag means one thing everywhere."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from swarm.errors import BadArgument
from swarm.terms import Address, NodeId, Span

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from swarm.client.admission import Admission
    from swarm.identity import Keyring
    from swarm.torrent import TorrentConfig

Verb = TypeVar("Verb", bound=Callable[..., Any])

NETWORKS = ("loopback", "lan", "wan")

EMBEDDED = "demo"
"""What a verb that talks with a model takes instead of a link, for the release that ships in the package."""


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


class SpanType(click.ParamType[Span]):
    """START:END."""

    name = "START:END"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Span:
        if isinstance(value, Span):
            return value
        try:
            return Span.parse(value)
        except BadArgument as error:
            self.fail(error.message, param, ctx)


class SizeType(click.ParamType[int]):
    """Bytes, or so many of a unit: `8GB` (decimal; `8G` is the same) or `8GiB`. is_rate: `/s` may follow."""

    def __init__(self, *, least: int = 0, is_rate: bool = False) -> None:
        self.name = "RATE" if is_rate else "SIZE"
        self._least = least
        self._is_rate = is_rate

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = value.strip().removesuffix("/s") if self._is_rate else value.strip()
        match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,6})?) ?([kmgt]?)(i?)(b?)", text, re.IGNORECASE)
        if match is None or (match[3] and not match[2]):
            examples = (
                "2M, 500kB/s or 2000000 (bytes a second)" if self._is_rate else "8GB, 512MiB or 8000000000 (bytes)"
            )
            self.fail(f"{value!r} is no {self.name.lower()}; write such as {examples}", param, ctx)
        power = " kmgt".index(match[2].lower() or " ")
        n_bytes = int(Decimal(match[1]) * (1024 if match[3] else 1000) ** power)
        if n_bytes < self._least:
            self.fail(f"{value!r} is {n_bytes} bytes; {self._least} are the least", param, ctx)
        return n_bytes


class RelayRateType(SizeType):
    """`off`, or a rate."""

    def __init__(self) -> None:
        super().__init__(least=1, is_rate=True)
        self.name = "RATE|off"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return 0 if value == "off" else super().convert(value, param, ctx)


class MagnetType(click.ParamType[str]):
    """A magnet link, or a name from the catalogue that stands for one; with `takes_demo` also the embedded release's.

    Hands the text on: `swarm.torrent.magnet_of` reads it, in every verb.
    """

    name = "MAGNET|NAME"

    def __init__(self, *, takes_demo: bool = False) -> None:
        self._takes_demo = takes_demo

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value == EMBEDDED and not self._takes_demo:
            self.fail(
                f"`{EMBEDDED}` is a swarm that `swarm chat`, `generate` and `gateway` start for as long as they run; "
                "here a magnet link is wanted, or a name from `swarm release list`",
                param,
                ctx,
            )
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from swarm.release.catalogue import CATALOGUE

        names = [*((EMBEDDED,) if self._takes_demo else ()), *(entry.name for entry in CATALOGUE)]
        return [CompletionItem(name) for name in names if name.lower().startswith(incomplete.lower())]


SIZE = SizeType()
RATE = SizeType(is_rate=True)
SPAN = SpanType()
ADDRESS = AddressType()


@dataclass(frozen=True, slots=True)
class Reach:
    """How far this command looks for others, and whom it knows already.

    network: `loopback` (this machine), `lan` (this site) or `wan` (anyone). bootstrap: nodes of the DHT to ask first.
    peers: nodes, by the addresses that they serve at. torrent_peers: BitTorrent peers that have the release.
    """

    network: str
    bootstrap: tuple[Address, ...] = ()
    peers: tuple[Address, ...] = ()
    torrent_peers: tuple[Address, ...] = ()

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


def magnet_argument(*, takes_demo: bool = False, **more: Any) -> Callable[[Verb], Verb]:
    """The release that a verb is about, handed to it as `magnet` (or what `name` says)."""
    name = more.pop("name", "magnet")
    metavar = "MAGNET|NAME" if more.get("required", True) else "[MAGNET|NAME]"
    metavar += "…" if more.get("nargs") == -1 else ""
    return click.argument(name, type=MagnetType(takes_demo=takes_demo), metavar=metavar, **more)


def network_options(verb: Verb) -> Verb:
    """--network and --bootstrap, handed to the verb as `network` and `bootstrap`."""
    network = click.option(
        "--network",
        type=click.Choice(NETWORKS),
        default="wan",
        envvar="SWARM_NETWORK",
        show_envvar=True,
        show_default=True,
        help="How far to look: this machine, this site, or anyone.",
    )
    bootstrap = click.option(
        "--bootstrap",
        type=ADDRESS,
        multiple=True,
        envvar="SWARM_BOOTSTRAP",
        show_envvar=True,
        help="A DHT node to start from (repeatable).",
    )
    return network(bootstrap(verb))


def node_options(verb: Verb) -> Verb:
    """For verbs that talk to nodes: --network, --bootstrap and --peer, handed over as one `reach: Reach`."""

    @network_options
    @click.option(
        "--peer",
        "peers",
        type=ADDRESS,
        multiple=True,
        envvar="SWARM_PEER",
        show_envvar=True,
        help="A node to ask directly, as `swarm node start` prints it (repeatable).",
    )
    @functools.wraps(verb)
    def with_reach(
        *args: Any, network: str, bootstrap: tuple[Address, ...], peers: tuple[Address, ...], **rest: Any
    ) -> Any:
        return verb(*args, reach=Reach(network, tuple(bootstrap), peers=tuple(peers)), **rest)

    return with_reach  # type: ignore[return-value]


def listen_option(**more: Any) -> Callable[[Verb], Verb]:
    """--listen; who writes --port, as other servers have it, is told so."""

    def refuse(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError("No such option '--port'. Did you mean '--listen HOST:PORT'?", ctx)

    port = click.option("--port", hidden=True, expose_value=False, callback=refuse)
    listen = click.option("--listen", type=ADDRESS, **more)
    return lambda verb: listen(port(verb))


def torrent_peer_option(help: str) -> Callable[[Verb], Verb]:
    """--torrent-peer, handed to the verb as `torrent_peers`. A peer knows one torrent, so no default names any."""
    return click.option("--torrent-peer", "torrent_peers", type=ADDRESS, multiple=True, help=help)


def torrent_settings_option(verb: Verb) -> Verb:
    """--bittorrent, handed to the verb as `torrent_settings`."""
    return click.option(
        "--bittorrent",
        "torrent_settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="lsd, pex, utp: on or off; encryption: allowed, required or off; proxy: socks5://HOST:PORT or http://…, "
        "with USER:PASSWORD@ where it asks for that; upload-rate, download-rate: 2M; schedule: 08:00-18:00=2M "
        "(repeatable).",
    )(verb)


def torrent_options(verb: Verb) -> Verb:
    """For verbs that only move bytes: --network, --bootstrap and --torrent-peer, handed over as one `reach: Reach`."""

    @network_options
    @torrent_peer_option("A BitTorrent peer that has the release (repeatable).")
    @functools.wraps(verb)
    def with_reach(
        *args: Any, network: str, bootstrap: tuple[Address, ...], torrent_peers: tuple[Address, ...], **rest: Any
    ) -> Any:
        return verb(*args, reach=Reach(network, tuple(bootstrap), torrent_peers=tuple(torrent_peers)), **rest)

    return with_reach  # type: ignore[return-value]


def json_option(verb: Verb) -> Verb:
    """--json, handed to the verb as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for programs.")(verb)


def timeout_option(default_s: float, help: str) -> Callable[[Verb], Verb]:
    """--timeout, handed to the verb as `timeout_s`."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0, min_open=True),
        default=default_s,
        envvar="SWARM_TIMEOUT",
        show_envvar=True,
        show_default=True,
        metavar="SECONDS",
        help=help,
    )


def data_dir_option(help: str) -> Callable[[Verb], Verb]:
    """--data-dir, handed to the verb as `data_dir`, None for the verb's own default, which `help` must name."""
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="SWARM_DATA_DIR",
        show_envvar=True,
        help=help,
    )


def client_options(verb: Verb) -> Verb:
    """--timeout and --data-dir as every verb that asks nodes has them."""
    timeout = timeout_option(60.0, "How long to wait for metadata and nodes.")
    return timeout(data_dir_option("Where configs and tokenizers are kept (default: the user's cache folder).")(verb))


def keys_dir_option(verb: Verb) -> Verb:
    """--keys-dir, handed to the verb as `keys_dir`: None for the user's own."""
    return click.option(
        "--keys-dir",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="SWARM_KEYS_DIR",
        show_envvar=True,
        help="Where signing keys and trusted ids are kept (default: the user's config folder).",
    )(verb)


def keyring_at(keys_dir: Path | None) -> Keyring:
    from platformdirs import user_config_path

    from swarm.identity import Keyring

    return Keyring(keys_dir or user_config_path("mistral-swarm") / "keys")


def onlooker_option(verb: Verb) -> Verb:
    """--keys-dir, handed over as the `admission: Admission` of somebody who only looks and knows whose key is whose."""

    @keys_dir_option
    @functools.wraps(verb)
    def looking(*args: Any, keys_dir: Path | None, **rest: Any) -> Any:
        from swarm.client.admission import Admission

        return verb(*args, admission=Admission(trusted=keyring_at(keys_dir).known(), hosts=False), **rest)

    return looking  # type: ignore[return-value]


def publisher_option(verb: Verb) -> Verb:
    """--publisher and --keys-dir, handed over as one `admission: Admission`, of somebody who hosts nothing.

    --publisher takes an id, a name that is known to the keyring, or `trusted`.
    """

    @click.option(
        "--publisher",
        "publishers",
        multiple=True,
        metavar="KEY",
        help="Take only a release that this key signed: an id, a name, or `trusted` (repeatable).",
    )
    @keys_dir_option
    @functools.wraps(verb)
    def with_publishers(*args: Any, publishers: tuple[str, ...], keys_dir: Path | None, **rest: Any) -> Any:
        from swarm.client.admission import Admission
        from swarm.identity.keyring import EVERYONE

        keyring = keyring_at(keys_dir)
        wanted: set[NodeId] = set()
        for who in publishers:
            wanted |= set(keyring.trusted()) if who == EVERYONE else {keyring.find(who)}
        if publishers and not wanted:
            raise BadArgument("no key is trusted yet; trust one with: swarm keys trust ID NAME")
        admission = Admission(publishers=frozenset(wanted), trusted=keyring.known(), hosts=False)
        return verb(*args, admission=admission, **rest)

    return with_publishers  # type: ignore[return-value]


def admission_options(verb: Verb) -> Verb:
    """--accept-licence, --publisher and --keys-dir, handed over as one `admission: Admission`."""

    @click.option(
        "--accept-licence",
        "accepted",
        multiple=True,
        metavar="NAME",
        help="Say that a licence which is not known to be free for every use (mrl, mnpl) covers yours (repeatable).",
    )
    @publisher_option
    @functools.wraps(verb)
    def with_admission(*args: Any, accepted: tuple[str, ...], admission: Admission, **rest: Any) -> Any:
        host = dataclasses.replace(admission, accepted_licences=frozenset(accepted), hosts=True)
        return verb(*args, admission=host, **rest)

    return with_admission  # type: ignore[return-value]
