"""gRPC's own log lines, which go straight to standard error, kept to errors."""

from __future__ import annotations

import os


def keep_grpc_quiet() -> None:
    """Let gRPC print errors only, unless GRPC_VERBOSITY is set. Works before gRPC's first object in the process.

    By default it reports every connection that a stranger breaks off, on the terminal of whoever runs a command.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
