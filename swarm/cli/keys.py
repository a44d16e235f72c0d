"""`swarm keys`: a publisher's signing keys, and whose signatures this user trusts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from swarm.cli.console import note, out_console, print_json
from swarm.cli.options import json_option, keyring_at, keys_dir_option

if TYPE_CHECKING:
    from collections.abc import Sequence

NEW_SCHEMA = "swarm.keys.new/1"
LIST_SCHEMA = "swarm.keys.list/1"
SHOW_SCHEMA = "swarm.keys.show/1"
TRUST_SCHEMA = "swarm.keys.trust/1"


@click.group(epilog="Example: swarm keys new me && swarm release sign ./Mixtral-8x7B-v0.1 --key me")
def keys() -> None:
    """Make keys that sign releases, and say whose signatures you trust."""


@keys.command(epilog="Example: swarm keys new me")
@click.argument("name")
@keys_dir_option
@json_option
def new(name: str, keys_dir: Path | None, as_json: bool) -> None:
    """Make a key and print its id, by which others can trust it."""
    keyring = keyring_at(keys_dir)
    node_id = keyring.new(name).node_id
    path = str(keyring.folder / f"{name}.key")
    if as_json:
        print_json(NEW_SCHEMA, {"name": name, "id": node_id, "path": path})
        return
    note(f"wrote {path}; whoever reads it can sign as you")
    click.echo(node_id)


@keys.command(name="list", epilog="Example: swarm keys list")
@keys_dir_option
@json_option
def list_keys(keys_dir: Path | None, as_json: bool) -> None:
    """List your own keys and those that you trust."""
    keyring = keyring_at(keys_dir)
    own = [{"name": name, "id": keyring.load(name).node_id, "kind": "own"} for name in keyring.names()]
    trusted = [{"name": name, "id": node_id, "kind": "trusted"} for node_id, name in keyring.trusted().items()]
    if as_json:
        print_json(LIST_SCHEMA, {"keys": own + trusted})
        return
    print_keys(own + trusted)


@keys.command(epilog="Example: swarm keys show me")
@click.argument("name")
@keys_dir_option
@json_option
def show(name: str, keys_dir: Path | None, as_json: bool) -> None:
    """Print the id of one key: yours, or one that you trust."""
    node_id = keyring_at(keys_dir).find(name)
    if as_json:
        print_json(SHOW_SCHEMA, {"name": name, "id": node_id})
    else:
        click.echo(node_id)


@keys.command(epilog="Example: swarm keys trust 6p3w… alice")
@click.argument("key_id", metavar="ID")
@click.argument("name")
@keys_dir_option
@json_option
def trust(key_id: str, name: str, keys_dir: Path | None, as_json: bool) -> None:
    """Trust releases that the key ID signs, and call it NAME."""
    keyring_at(keys_dir).trust(key_id, name)
    if as_json:
        print_json(TRUST_SCHEMA, {"name": name, "id": key_id})
        return
    note(
        f"{name} is trusted; `--publisher {name}` asks for that signature, `--publisher trusted` for anyone's you trust"
    )


def print_keys(rows: Sequence[dict[str, str]]) -> None:
    from rich.table import Table

    if not rows:
        note("no keys yet; make one with: swarm keys new NAME")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "kind", "id"):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(row["name"], row["kind"], row["id"])
    out_console().print(table)
