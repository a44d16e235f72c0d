"""The root command: a group whose verbs are imported only when they run, and the one place that ends the process."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from swarm import __version__
from swarm.cli.errors import EXIT_FAILURE, is_ours, missing_extra, report_error, wants_json
from swarm.cli.huge_pages import restart_with_huge_pages
from swarm.errors import SwarmError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

ENTRY_POINT_GROUP = "swarm.commands"

COMPLETE_VARIABLE = "_SWARM_COMPLETE"
"""Set by the scripts of `swarm completion` when a shell asks for completions: click answers, and no verb runs."""

VERBS: dict[str, tuple[str, str]] = {
    "release": ("swarm.cli.release:release", "Create, inspect and seed releases (weights as torrents)."),
    "generate": ("swarm.cli.generate:generate", "Complete a prompt with the nodes behind a magnet link."),
    "chat": ("swarm.cli.chat:chat", "Talk with the model behind a magnet link."),
    "keys": ("swarm.cli.keys:keys", "Make keys that sign releases, and say whose signatures you trust."),
    "status": ("swarm.cli.status:status", "Show the nodes of a release and which layers they cover."),
    "top": ("swarm.cli.top:top", "Watch the nodes of a release: layers, sessions, tokens/s."),
    "gateway": ("swarm.cli.gateway:gateway", "Serve releases over HTTP: OpenAI's and Mistral's API, a web chat."),
    "gateway-keys": ("swarm.cli.gateway_keys:gateway_keys", "Make, list and remove a gateway's API keys."),
    "usage": ("swarm.cli.usage:usage", "Add up what a gateway served, by key, model, node or day."),
    "netcheck": (
        "swarm.cli.netcheck:netcheck",
        "Find out who reaches a node on this machine, and what mends it.",
    ),
    "doctor": ("swarm.cli.doctor:doctor", "Look at this machine: versions, memory, disk, limits, keys, clock."),
    "completion": ("swarm.cli.completion:completion", "Print what makes bash, zsh or fish complete these verbs."),
    "demo": ("swarm.cli.demo:demo", "Run a whole swarm on this machine: seed, nodes, a talk, a loss."),
}
"""Our own verbs, in the order that --help shows them: name -> (module:attribute, the line shown in --help)."""

EXTERNAL_HELP = {"node": "Host layers of a release and serve them (extra: mistral-swarm[node])."}
"""--help's line for verbs of the entry-point group, which are not imported to be listed."""


class VerbGroup(click.Group):
    """A group that knows its verbs by name, imports one only to run it, and ends the process with the right status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        external = sorted({entry.name for entry in metadata.entry_points(group=ENTRY_POINT_GROUP)} - VERBS.keys())
        return [*VERBS, *external]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in VERBS:
            module, _, attribute = VERBS[cmd_name][0].partition(":")
            return getattr(importlib.import_module(module), attribute)
        for entry in metadata.entry_points(group=ENTRY_POINT_GROUP, name=cmd_name):
            return load_external(entry)
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        command = self.get_command(ctx, args[0])
        if command is not None:
            return args[0], command, args[1:]
        if args[0].startswith("-"):
            ctx.fail(f"no such option: {args[0]}")
        known = self.list_commands(ctx)
        close = difflib.get_close_matches(args[0], known, n=2, cutoff=0.5)
        mend = f"did you mean {' or '.join(repr(name) for name in close)}?" if close else f"verbs: {', '.join(known)}"
        ctx.fail(f"no such verb: {args[0]!r}; {mend}")

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The verbs and options that begin so, without importing any verb: a shell asks at every key."""
        from click.shell_completion import CompletionItem

        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        verbs = [CompletionItem(name, help=short_help(name)) for name in names]
        return [*verbs, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs without importing any of them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, short_help(name)) for name in self.list_commands(ctx)])

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run one verb and exit: 0, or the status and text that `swarm.cli.errors` has for what went wrong."""
        argv = list(sys.argv[1:] if args is None else args)
        extra.pop("standalone_mode", None)
        try:
            returned = super().main(argv, prog_name or "swarm", standalone_mode=False, **extra)
            sys.stdout.flush()
        except Exception as error:  # the top of the process: every failure becomes a message and a status here
            if COMPLETE_VARIABLE in os.environ:  # a message would land in the middle of the line that is typed
                sys.exit(EXIT_FAILURE)
            sys.exit(report_error(error, as_json=wants_json(argv)))
        except KeyboardInterrupt as error:
            sys.exit(report_error(error, as_json=wants_json(argv)))
        sys.exit(returned if isinstance(returned, int) else 0)


def short_help(name: str) -> str:
    return VERBS[name][1] if name in VERBS else EXTERNAL_HELP.get(name, "A verb of another installed package.")


def load_external(entry: metadata.EntryPoint) -> click.Command:
    """The command behind an entry point. Raises: SwarmError naming what to install when its packages are missing."""
    if entry.name == "node" and importlib.util.find_spec("torch") is None:
        raise missing_extra("torch")
    try:
        command = entry.load()
    except ModuleNotFoundError as error:
        raise error if is_ours(error.name) else missing_extra(error.name) from error
    except (ImportError, AttributeError) as error:
        raise SwarmError(
            f"the verb {entry.name!r} cannot be loaded from {entry.value}: {error}; reinstall what brings it"
        ) from error
    if not isinstance(command, click.Command):
        raise SwarmError(f"the verb {entry.name!r} ({entry.value}) is not a click command; reinstall what brings it")
    return command


@click.group(
    cls=VerbGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Example: swarm demo   (a seed, four nodes and a conversation, all on this machine)",
)
@click.version_option(__version__, prog_name="swarm", message="%(prog)s %(version)s")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="SWARM_CONFIG",
    show_envvar=True,
    help="TOML file with defaults for flags; a flag wins over SWARM_… in the environment, and that over the file.",
)
@click.pass_context
def cli(ctx: click.Context, config_path: Path | None) -> None:
    """Run open-weight Mistral models together: a magnet link names the model, and finds its weights and its nodes."""
    from swarm.cli.config import load_defaults

    ctx.default_map = load_defaults(config_path)


def main() -> NoReturn:
    """The console script `swarm`."""
    # gRPC's own log lines are not for the person at the terminal: what fails reaches them as an error with a mend.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if sys.argv[1:3] == ["node", "start"]:
        restart_with_huge_pages()
    cli.main()
