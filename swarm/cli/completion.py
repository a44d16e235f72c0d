"""`swarm completion`: the lines that make a shell complete verbs, flags and their choices."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")
HOW_TO_LOAD = """\b
Load it:
  bash   swarm completion bash > ~/.local/share/bash-completion/completions/swarm
  zsh    swarm completion zsh > "${fpath[1]}/_swarm"
  fish   swarm completion fish > ~/.config/fish/completions/swarm.fish
or, for the present shell only: eval "$(swarm completion bash)"

\b
Example: swarm completion bash"""


@click.command(epilog=HOW_TO_LOAD)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that completes `swarm` in SHELL.

    The script asks the `swarm` of the PATH, so that it need not be made again after an upgrade.
    """
    from click.shell_completion import get_completion_class

    from swarm.cli.main import COMPLETE_VARIABLE, cli

    completer = get_completion_class(shell)
    assert completer is not None, f"click completes no {shell}"
    click.echo(completer(cli, {}, "swarm", COMPLETE_VARIABLE).source(), nl=False)
