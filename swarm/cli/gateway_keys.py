"""`swarm gateway-keys`: make, list and remove the API keys that a gateway lets in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from swarm.cli.console import note, out_console, print_json
from swarm.cli.options import json_option

KEYS_SCHEMA = "swarm.gateway-keys/1"

Verb = TypeVar("Verb", bound=Callable[..., Any])


def keys_option(verb: Verb) -> Verb:
    """--keys, handed to the verb as `keys_file`; None for the default."""
    return click.option(
        "--keys",
        "keys_file",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="SWARM_GATEWAY_KEYS",
        show_envvar=True,
        help="The key file (default: gateway-keys.json in the user's config folder).",
    )(verb)


@click.group("gateway-keys", epilog="Example: swarm gateway-keys add alice")
def gateway_keys() -> None:
    """Make, list and remove the API keys that `swarm gateway --keys FILE` lets in.

    The file holds names and salted hashes, never a key. A gateway that runs follows its changes.
    """


@gateway_keys.command(epilog="Example: swarm gateway-keys add alice --keys keys.json")
@click.argument("name")
@keys_option
@json_option
def add(name: str, keys_file: Path | None, as_json: bool) -> None:
    """Make a key named NAME and print it: this once, since only its hash is kept."""
    from swarm.gateway.operations.key_file import add_key, default_keys_path

    file = keys_file or default_keys_path()
    key = add_key(file, name)
    if as_json:
        print_json(KEYS_SCHEMA, {"name": name, "key": key, "file": str(file)})
    else:
        click.echo(key)
        note(f"keep it now: it is not shown again. Its hash is in {file}; serve with: swarm gateway --keys {file} …")


@gateway_keys.command("list", epilog="Example: swarm gateway-keys list --json")
@keys_option
@json_option
def list_keys(keys_file: Path | None, as_json: bool) -> None:
    """List the keys by name, with the day on which each was made."""
    from rich.table import Table

    from swarm.gateway.operations.key_file import default_keys_path, read_keys

    file = keys_file or default_keys_path()
    keys = read_keys(file)
    if as_json:
        entries = [{"name": key.name, "id": key.id, "created": key.created} for key in keys]
        print_json(KEYS_SCHEMA, {"file": str(file), "keys": entries})
        return
    table = Table("name", "id", "made", box=None, pad_edge=False, header_style="bold")
    for key in keys:
        table.add_row(key.name, key.id, key.created)
    out_console().print(table)


@gateway_keys.command(epilog="Example: swarm gateway-keys remove alice")
@click.argument("name")
@keys_option
@json_option
def remove(name: str, keys_file: Path | None, as_json: bool) -> None:
    """Remove the key named NAME; a gateway that runs refuses it within a second or so."""
    from swarm.gateway.operations.key_file import default_keys_path, remove_key

    file = keys_file or default_keys_path()
    remove_key(file, name)
    if as_json:
        print_json(KEYS_SCHEMA, {"name": name, "removed": True, "file": str(file)})
    else:
        note(f"{name} is removed from {file}")
