"""`swarm release seed`: give a release's bytes to whoever asks, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from swarm.cli.console import LINE_INTERVAL_S, format_rate, format_size, note, print_event, status_line
from swarm.cli.hf_cache import hub_web_seed, snapshot_folder
from swarm.cli.options import (
    ADDRESS,
    Reach,
    admission_options,
    json_option,
    listen_option,
    torrent_options,
    torrent_settings_option,
)
from swarm.cli.release_files import (
    cached_torrent_path,
    hash_folder,
    reusable_torrent,
    writable_torrent_path,
    write_atomically,
)
from swarm.cli.release_sign import read_papers
from swarm.errors import BadArgument, ReleaseError, VerificationError
from swarm.terms import Address, counted

if TYPE_CHECKING:
    from swarm.client.admission import Admission
    from swarm.torrent import Download, Torrent, TorrentConfig, TorrentSession

SEED_SCHEMA = "swarm.release.seed/1"


@dataclass(frozen=True, slots=True)
class SeedOptions:
    """parent_dir: the folder that holds the release's own. is_hashed: its bytes were read by this very command.

    folder: the release's own folder where the user named that, None where it was a torrent. torrent_file: where its
    torrent is kept. web_seeds: of a new torrent. config: of the torrent session.
    """

    torrent: Torrent
    parent_dir: Path
    folder: Path | None
    is_hashed: bool
    listen: Address | None
    external: Address | None
    reach: Reach
    as_json: bool
    torrent_file: Path | None
    web_seeds: tuple[str, ...]
    config: TorrentConfig


@click.command(epilog="Example: swarm release seed ./Mixtral-8x7B-v0.1 --listen 0.0.0.0:6881")
@click.argument("source", metavar="[DIR|TORRENT]", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--from-hf-cache", "hf_repo", metavar="ORG/REPO", help="Seed it straight from the Hugging Face cache.")
@listen_option(help="Where to take connections (default: a free port).")
@click.option("--external", type=ADDRESS, help="The address that others reach this seed by, for the magnet link.")
@click.option(
    "--dir",
    "parent_dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="For a TORRENT: the folder that holds the release's folder (default: where the torrent lies).",
)
@torrent_settings_option
@torrent_options
@admission_options
@json_option
def seed(
    source: Path | None,
    hf_repo: str | None,
    listen: Address | None,
    external: Address | None,
    parent_dir: Path | None,
    torrent_settings: tuple[str, ...],
    reach: Reach,
    admission: Admission,
    as_json: bool,
) -> None:
    """Seed a release until interrupted, and print its magnet link.

    For a DIR, NAME.torrent beside it is used where it still matches, and made where it does not. The files are only
    read, never written. From the Hugging Face cache nothing is copied and nothing written either: the torrent is named
    by the commit, so that the hub itself is its web seed.
    """
    from swarm.release import read_folder_layout
    from swarm.torrent import Torrent, with_settings

    if (source is None) == (hf_repo is None):
        raise BadArgument("name either a DIR or TORRENT to seed, or --from-hf-cache ORG/REPO")
    web_seeds = (hub_web_seed(hf_repo),) if hf_repo is not None else ()
    source = snapshot_folder(hf_repo) if hf_repo is not None else source
    assert source is not None
    source = source.resolve()
    config = with_settings(reach.torrent_config(listen), torrent_settings)  # before a folder is hashed for minutes
    torrent_file = None
    if source.is_file():
        torrent, folder, is_hashed = Torrent.load(source), None, False
    elif parent_dir is not None:
        raise BadArgument("--dir goes with a TORRENT; a DIR is seeded from where it is")
    else:
        read_folder_layout(source)
        torrent_file = cached_torrent_path(source) if hf_repo is not None else writable_torrent_path(source)
        reusable = reusable_torrent(source, torrent_file)
        torrent, folder, is_hashed = reusable or make_torrent(source, torrent_file, web_seeds), source, reusable is None
    parent_dir = (parent_dir or source.parent).resolve()
    check_admission(torrent, torrent.root_in(parent_dir), admission)
    where = (torrent_file, web_seeds, config)
    options = SeedOptions(torrent, parent_dir, folder, is_hashed, listen, external, reach, as_json, *where)
    asyncio.run(seed_until_stopped(options))


def check_admission(torrent: Torrent, root: Path, admission: Admission) -> None:
    """Refuse what may not be passed on without a word from the user, and say who signed it.

    Releases that cannot be run here can be seeded; of them only the licence is looked at, unless a signer is asked for.
    Raises: LicenceNotAccepted, CorruptRelease.
    """
    from swarm.client.admission import admit
    from swarm.release import check_licence, find_entry, folder_licence, read_folder_layout

    if not root.is_dir():
        return
    try:
        layout = read_folder_layout(root)
    except ReleaseError:
        if admission.publishers:
            raise
        entry = find_entry(torrent.infohash)
        for licence in (folder_licence(root), entry.licence if entry else None):
            check_licence(licence, admission.accepted_licences, torrent.name)
        return
    papers = read_papers(root, torrent.sizes)
    note(admit(layout, torrent.sizes, torrent.infohash, papers, admission).words)


def make_torrent(folder: Path, path: Path, web_seeds: tuple[str, ...]) -> Torrent:
    torrent = hash_folder(folder, web_seeds=web_seeds)
    write_atomically(path, torrent.data)
    note(f"wrote {path}")
    return torrent


async def seed_until_stopped(options: SeedOptions) -> None:
    """Seed, show, and stop at SIGINT or SIGTERM."""
    from swarm.torrent import TorrentSession

    stop = asyncio.Event()
    with stops_on_signals(stop):
        async with TorrentSession(options.config) as session:
            torrent, download = await start_seeding(session, options)
            if options.reach.torrent_peers:
                download.add_peers(options.reach.torrent_peers)
            magnet = str(torrent.magnet(own_addresses(session, options)))
            if options.as_json:
                sizes = {"name": torrent.name, "infohash": torrent.infohash, "total_bytes": torrent.total_bytes}
                print_event(SEED_SCHEMA, "seeding", magnet=magnet, port=session.port, **sizes)
            else:
                click.echo(magnet)
                note(
                    f"seeding {torrent.name} ({format_size(torrent.total_bytes)}) on port {session.port}; Ctrl-C stops"
                )
            await show_until(stop, download, options.as_json)
            uploaded_bytes = download.status().uploaded_bytes
    if options.as_json:
        print_event(SEED_SCHEMA, "stopped", uploaded_bytes=uploaded_bytes)
    else:
        note(f"stopped after giving {format_size(uploaded_bytes)}")


async def start_seeding(session: TorrentSession, options: SeedOptions) -> tuple[Torrent, Download]:
    """Seed the torrent; a folder whose bytes are no longer those of the torrent beside it gets a new one."""
    try:
        return options.torrent, await session.seed(options.torrent, options.parent_dir, verified=options.is_hashed)
    except VerificationError as error:
        if options.folder is None:
            raise VerificationError(
                f"{error.message}; if the files were changed on purpose, make a new release of them: "
                f"swarm release create {options.parent_dir / options.torrent.name}"
            ) from error
    assert options.torrent_file is not None
    note(f"{options.torrent_file} no longer matches the files")
    torrent = await asyncio.to_thread(make_torrent, options.folder, options.torrent_file, options.web_seeds)
    return torrent, await session.seed(torrent, options.parent_dir, verified=True)


def own_addresses(session: TorrentSession, options: SeedOptions) -> tuple[Address, ...]:
    """The addresses that the magnet may carry: a wildcard listener knows none of its own."""
    if options.external is not None:
        return (options.external,)
    if options.listen is not None and not options.listen.is_unspecified:
        return (Address(options.listen.host, session.port),)
    return (Address("127.0.0.1", session.port),) if options.reach.network == "loopback" else ()


async def show_until(stop: asyncio.Event, download: Download, as_json: bool) -> None:
    """Show rates and peers every few seconds until `stop`."""
    with status_line() as show:
        while not stop.is_set():
            status = download.status()
            fields = {"uploaded_bytes": status.uploaded_bytes, "upload_rate": status.upload_rate}
            if as_json:
                print_event(SEED_SCHEMA, "progress", n_peers=status.n_peers, **fields)
            else:
                given = format_size(status.uploaded_bytes)
                show(f"{format_rate(status.upload_rate)} up, {given} given, {counted(status.n_peers, 'peer')}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINE_INTERVAL_S):
                    await stop.wait()


@contextlib.contextmanager
def stops_on_signals(stop: asyncio.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop`; a second one ends the process as usual."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def request_stop() -> None:
        stop.set()
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, request_stop)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
