"""The command line: verbs that read flags, call one room, and print what came back.

Promises: results on stdout and progress on stderr, one exit code per kind of failure, `--json` on every verb that
answers something, and a `--help` that loads no room at all. Does NOT know how anything works: no torrent, tensor, route
or session logic lives here, and no verb keeps state of its own beyond the files that the user names.
"""

__all__: list[str] = []  # its modules are imported by name, each only when its verb runs
