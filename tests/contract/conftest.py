"""What several contracts are held against: the command line as it is."""

from __future__ import annotations

from collections.abc import Callable

import click
import pytest

from swarm.cli.main import cli


@pytest.fixture
def check_command() -> Callable[[list[str]], None]:
    """check_command(arguments) lets click parse a command line of `swarm`, without running it.

    Raises: click.UsageError.
    """

    def check(arguments: list[str]) -> None:
        command: click.Command = cli
        context = click.Context(cli, info_name="swarm")
        while isinstance(command, click.Group):
            found = command.get_command(context, arguments[0])
            assert found is not None, f"no verb {arguments[0]}"
            command, arguments = found, arguments[1:]
        command.make_context(command.name, arguments, parent=context)

    return check
