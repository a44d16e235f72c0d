"""The one table from what went wrong to what the user reads and the process's exit status."""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

import click

from swarm.errors import Interrupted, LayersUncovered, SwarmError

ERROR_SCHEMA = "swarm.error/1"

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_DISK = 6

NODE_EXTRA_MODULES = frozenset({"torch", "safetensors", "psutil"})
"""What the extra [node] installs: a missing one of these is mended by installing the extra."""

GATEWAY_EXTRA_MODULES = frozenset({"starlette", "uvicorn", "httptools", "llguidance", "prometheus_client"})
"""What the extra [gateway] installs."""


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """kind: the error's class name. message: what, why, and what mends it; "" where usage says it all. usage: what
    stands above a usage error.
    """

    kind: str
    message: str
    exit_code: int
    usage: str = ""
    layers: tuple[int, ...] = ()
    is_bug: bool = False


def wants_json(argv: Sequence[str]) -> bool:
    """Whether the user asked for --json, known even where parsing the command line is what failed."""
    return "--json" in (argv[: argv.index("--")] if "--" in argv else argv)


def missing_extra(module: str | None) -> SwarmError:
    """The error for a package that is not installed, with the command that installs it."""
    if module is not None and module.partition(".")[0] in NODE_EXTRA_MODULES:
        return SwarmError(
            f"{module} is not installed, which a node needs and a client does not; mend it with: "
            "pip install 'mistral-swarm[node]' (in a checkout: pip install '.[node]')"
        )
    if module is not None and module.partition(".")[0] in GATEWAY_EXTRA_MODULES:
        return SwarmError(
            f"{module} is not installed, which the gateway and structured output need; mend it with: "
            "pip install 'mistral-swarm[gateway]' (in a checkout: pip install '.[gateway]')"
        )
    return SwarmError(
        f"the Python package {module!r} is not installed; mend it with: pip install --upgrade mistral-swarm"
    )


def is_ours(module: str | None) -> bool:
    """Whether a module that cannot be found should have come with this very package."""
    return module is not None and module.partition(".")[0] in ("swarm", "node")


def explain(error: BaseException) -> ErrorReport:
    """What to tell the user about `error`, and the status to exit with."""
    if isinstance(error, ModuleNotFoundError) and not is_ours(error.name):
        error = missing_extra(error.name)
    match error:
        case SwarmError():
            layers = error.layers if isinstance(error, LayersUncovered) else ()
            return ErrorReport(type(error).__name__, error.message, error.exit_code, layers=tuple(layers))
        case KeyboardInterrupt() | click.Abort():
            return explain(Interrupted("interrupted"))
        case click.exceptions.NoArgsIsHelpError():  # its message is the whole help, and says all there is to say
            return ErrorReport("UsageError", "", EXIT_USAGE, usage=error.format_message())
        case click.UsageError():
            usage = "" if error.ctx is None else f"{error.ctx.get_usage()}\nTry '{error.ctx.command_path} --help'."
            return ErrorReport("UsageError", error.format_message(), EXIT_USAGE, usage=usage)
        case click.ClickException():
            return ErrorReport(type(error).__name__, error.format_message(), error.exit_code)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return ErrorReport("DiskFull", f"{describe_os_error(error)}; free some space and run it again", EXIT_DISK)
        case OSError(errno=int()):
            return ErrorReport(type(error).__name__, describe_os_error(error), EXIT_FAILURE)
        case _:
            message = f"{type(error).__name__}: {error}; this is a bug in swarm: please report the traceback above"
            return ErrorReport(type(error).__name__, message, EXIT_FAILURE, is_bug=True)


def describe_os_error(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def report_error(error: BaseException, *, as_json: bool) -> int:
    """Write `error:` text to stderr, with --json also one JSON object to stdout, and return the exit status."""
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        discard_stdout()
        return EXIT_FAILURE
    report = explain(error)
    if report.is_bug or os.environ.get("SWARM_TRACEBACK"):
        traceback.print_exception(error)
    if report.usage:
        click.echo(report.usage, err=True)
    if report.message:
        click.echo(report.message if report.kind == "Interrupted" else f"error: {report.message}", err=True)
    if as_json:
        fields = {"schema": ERROR_SCHEMA, "event": "error", "error": report.kind, "message": report.message}
        extra = {"layers": list(report.layers)} if report.layers else {}
        click.echo(json.dumps({**fields, "exit_code": report.exit_code, **extra}))
    return report.exit_code


def discard_stdout() -> None:
    """Point stdout at nothing: its reader has gone, and Python would complain once more while exiting."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
