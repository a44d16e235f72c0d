"""`swarm release list`: Mistral's own releases by torrent."""

from __future__ import annotations

import click

from swarm.cli.console import note, out_console, print_json
from swarm.cli.options import json_option

LIST_SCHEMA = "swarm.release.list/1"


@click.command(name="list", epilog="Example: swarm release list mixtral-8x22b")
@click.argument("name", metavar="[NAME|MAGNET]", required=False)
@json_option
def list_releases(name: str | None, as_json: bool) -> None:
    """List Mistral's own torrents, or print one's magnet link.

    A MAGNET as it was found somewhere is printed with its trackers repaired, and with those that were posted with it.
    """
    from swarm.release.catalogue import CATALOGUE
    from swarm.torrent import magnet_of

    if name is not None:
        magnet = mended_magnet(name)
        if as_json:
            print_json(LIST_SCHEMA, {"releases": [{"magnet": magnet}]})
        else:
            click.echo(magnet)
        return
    rows = [
        {
            "name": entry.name,
            "model": entry.model,
            "licence": entry.licence,
            "infohash": entry.infohash,
            "runnable": entry.is_runnable,
            "magnet": str(magnet_of(entry.name)),
        }
        for entry in CATALOGUE
    ]
    if as_json:
        print_json(LIST_SCHEMA, {"releases": rows})
        return
    print_entries(rows)


def mended_magnet(text: str) -> str:
    """The link for a catalogue's name, or a pasted link mended. Raises: MagnetError."""
    from swarm.release import find_entry
    from swarm.torrent import Magnet, magnet_of

    pasted = magnet_of(text)
    for warning in pasted.warnings:
        note(warning)
    entry = find_entry(pasted.infohash)
    trackers = tuple(dict.fromkeys((*(entry.trackers if entry else ()), *pasted.trackers)))
    name = pasted.name or (entry.name if entry else "")
    return str(Magnet(pasted.v1, pasted.v2, name, trackers, pasted.web_seeds, pasted.peers))


def print_entries(rows: list[dict[str, object]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "model", "licence", "runs here"):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        runs = "yes" if row["runnable"] else "no, seed only"
        table.add_row(str(row["name"]), str(row["model"]), str(row["licence"]), runs)
    out_console().print(table)
    note("a link: swarm release list NAME")
