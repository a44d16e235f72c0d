"""Imported before grpc, to keep its own log lines on standard error to errors, unless GRPC_VERBOSITY is set.

By default gRPC reports every connection that a stranger or a restart breaks off, on the terminal of whoever runs a
command. It reads the variable while it is being imported, so this module is the room's one exception to doing no work
at import.
"""

import os

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
