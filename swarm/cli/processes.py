"""Child processes that speak NDJSON: started, waited on by event, ended by pid; a failure says who said what."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from swarm.errors import SwarmError

STOP_GRACE_S = 20.0
"""How long a process may take over its farewell before it is killed."""

N_LAST_LINES = 12


class Child:
    """One `python -m swarm …` (or another module) of this very installation, in a process group of its own.

    Its stdout is read as NDJSON events; its stderr goes to `log`, so that neither ever blocks it. Events that are not
    waited for stay in `events`. within: a command that runs it somewhere else, such as `ip netns exec NAME`.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], log: Path, *, module: str = "swarm", within: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.log = log
        self.events: list[dict[str, Any]] = []
        self._strays: list[str] = []
        self._incoming: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [*within, sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                # A Ctrl-C at the terminal must reach the children through stop() only, once and in order.
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read_events, name=f"events of {name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def next_event(self, deadline_s: float) -> dict[str, Any] | None:
        """The next event; None when none comes before `deadline_s` (time.monotonic). Raises: SwarmError at its end."""
        try:
            event = self._incoming.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            return None
        if event is None:
            raise self.failure(f"ended with status {self._process.wait()}")
        self.events.append(event)
        return event

    def wait_for(self, kind: str, timeout_s: float) -> dict[str, Any]:
        """The first event of this kind. Raises: SwarmError when the process ends or says nothing of it in time."""
        deadline_s = time.monotonic() + timeout_s
        for seen in self.events:
            if seen.get("event") == kind:
                return seen
        while (event := self.next_event(deadline_s)) is not None:
            if event.get("event") == kind:
                return event
        raise self.failure(f"did not report {kind!r} within {timeout_s:.0f} s")

    def wait_for_end(self, timeout_s: float) -> None:
        """Wait until it is done. Raises: SwarmError when it fails or takes too long."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self.failure(f"was not done within {timeout_s:.0f} s") from None
        self._reader.join(STOP_GRACE_S)
        while not self._incoming.empty():
            if (event := self._incoming.get()) is not None:
                self.events.append(event)
        if status != 0:
            raise self.failure(f"ended with status {status}")

    def failure(self, what: str) -> SwarmError:
        """The error for this process: its name, what happened, and its own last words."""
        said = last_lines(self.log) or "\n".join(self._strays[-N_LAST_LINES:]) or "(nothing)"
        quoted = "\n".join(f"    {line}" for line in said.splitlines())
        return SwarmError(f"{self.name} (pid {self.pid}) {what}; it said:\n{quoted}\n  its whole log: {self.log}")

    def interrupt(self) -> None:
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it at once, with no chance to say so."""
        if self.is_running:
            self._process.kill()
        self._process.wait()

    def end_by(self, deadline_s: float) -> bool:
        """Wait until `deadline_s` (by time.monotonic), then kill. True when it ended by itself."""
        try:
            self._process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False
        return True

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            for line in stdout:
                event = parse_event(line)
                if event is None:
                    self._strays.append(line.decode(errors="replace").rstrip())
                else:
                    self._incoming.put(event)
        self._incoming.put(None)


def parse_event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def last_lines(log: Path, n_lines: int = N_LAST_LINES) -> str:
    with contextlib.suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-n_lines:])
    return ""


def stop_all(children: Iterable[Child], grace_s: float = STOP_GRACE_S) -> list[Child]:
    """Interrupt all at once, wait for all within one deadline, kill what is left. Returns those that had to be killed.

    A second Ctrl-C while waiting does not leave anybody behind: it ends the waiting, not the killing.
    """
    running = list(children)
    for child in running:
        child.interrupt()
    deadline_s = time.monotonic() + grace_s
    killed: list[Child] = []
    for child in reversed(running):
        try:
            ended = child.end_by(deadline_s)
        except KeyboardInterrupt:
            deadline_s = time.monotonic()
            ended = child.end_by(deadline_s)
        if not ended:
            killed.append(child)
    return killed
