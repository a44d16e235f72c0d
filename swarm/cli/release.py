"""`swarm release`: the group, and `create`, which turns a folder of weights into a torrent and a magnet link."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from swarm.cli.console import format_piece_size, format_size, note, print_json
from swarm.cli.options import SizeType, json_option, onlooker_option, torrent_peer_option
from swarm.cli.release_embedded import embedded
from swarm.cli.release_files import hash_folder, torrent_path, write_atomically
from swarm.cli.release_inspect import inspect
from swarm.cli.release_list import list_releases
from swarm.cli.release_plan import plan
from swarm.cli.release_seed import seed
from swarm.cli.release_sign import check_papers, sign, verify
from swarm.terms import Address, counted

if TYPE_CHECKING:
    from swarm.client.admission import Admission

CREATE_SCHEMA = "swarm.release.create/1"


@click.group(epilog="Example: swarm release create ./Mixtral-8x7B-v0.1")
def release() -> None:
    """Create, sign, inspect, plan and seed releases: folders of weights, named by their torrent's infohash."""


release.add_command(embedded)
release.add_command(inspect)
release.add_command(list_releases)
release.add_command(plan)
release.add_command(seed)
release.add_command(sign)
release.add_command(verify)


@release.command(
    epilog="Example: swarm release create ./Mixtral-8x7B-v0.1 --tracker udp://tracker.example.org:1337/announce"
)
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--web-seed", "web_seeds", multiple=True, metavar="URL", help="An HTTP copy, BEP 19 (repeatable).")
@click.option("--tracker", "trackers", multiple=True, metavar="URL", help="A tracker to announce to (repeatable).")
@click.option("--piece-size", type=SizeType(least=16 * 1024), help="Default: by total size.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Default: NAME.torrent beside DIR."
)
@click.option(
    "--hybrid", is_flag=True, help="BitTorrent v2 hashes beside v1's; aria2 1.36 and Transmission 3 can't read those."
)
@torrent_peer_option("A BitTorrent peer to name in the magnet, x.pe (repeatable).")
@onlooker_option
@json_option
def create(
    folder: Path,
    web_seeds: tuple[str, ...],
    trackers: tuple[str, ...],
    piece_size: int | None,
    output: Path | None,
    hybrid: bool,
    torrent_peers: tuple[Address, ...],
    admission: Admission,
    as_json: bool,
) -> None:
    """Make a torrent of the release in DIR and print its magnet link as the last line.

    The layout is checked first: config, index and every weight file's header must agree, and with them a manifest.
    """
    folder = folder.resolve()
    _, provenance = check_papers(folder, admission)
    note(provenance.words)
    torrent = hash_folder(folder, piece_size, trackers, web_seeds, hybrid=hybrid)
    path = torrent_path(folder) if output is None else output
    write_atomically(path, torrent.data)
    magnet = str(torrent.magnet(torrent_peers))
    if as_json:
        fields = {"infohash": torrent.infohash, "name": torrent.name, "torrent": str(path.resolve()), "magnet": magnet}
        sizes = {"total_bytes": torrent.total_bytes, "piece_size": torrent.piece_size, "n_pieces": torrent.n_pieces}
        print_json(CREATE_SCHEMA, {**fields, **sizes})
        return
    pieces = f"{counted(torrent.n_pieces, 'piece')} of {format_piece_size(torrent.piece_size)}"
    note(f"{format_size(torrent.total_bytes)} in {pieces}")
    click.echo(path)
    click.echo(magnet)
