"""`swarm release embedded`: the release that ships in the package, as a folder of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from swarm.cli.console import note, print_json
from swarm.cli.options import json_option
from swarm.errors import BadArgument

EMBEDDED_SCHEMA = "swarm.release.embedded/1"


@click.command(epilog="Example: swarm release embedded . && swarm release seed ./pip-12m")
@click.argument("directory", metavar="[DIR]", default=".", type=click.Path(file_okay=False, path_type=Path))
@json_option
def embedded(directory: Path, as_json: bool) -> None:
    """Copy the release that ships with the package into DIR, and print the folder: a small Mixtral that speaks."""
    from swarm.embedded import release_folder

    source = release_folder()
    target = directory / source.name
    if target.exists():
        raise BadArgument(f"{target} exists already, and nothing is overwritten; name another folder")
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / f".{source.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, copy_function=shutil.copyfile)
    partial.rename(target)
    if as_json:
        print_json(EMBEDDED_SCHEMA, {"path": str(target)})
    else:
        click.echo(str(target))
        note(f"seed it with: swarm release seed {target}")
