"""What the fault tests share: the real command line as child processes, and small releases to break."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm.cli.processes import Child
from swarm.terms import Address

SCRIPTS = str(Path(__file__).parents[2] / "scripts")
if SCRIPTS not in sys.path:
    sys.path.insert(0, SCRIPTS)

DEADLINE_S = 60.0
LOOPBACK = ("--network", "loopback")


class Process(Child):
    """A `swarm … --json` child whose end, whatever it is, the test reads."""

    def status(self, timeout_s: float = DEADLINE_S) -> int:
        """The exit status as a shell has it (130 for SIGINT); its events are all in `events` afterwards."""
        status = self._process.wait(timeout_s)
        self._reader.join(timeout_s)
        while not self._incoming.empty():
            if (event := self._incoming.get()) is not None:
                self.events.append(event)
        return 128 + signal.SIGINT if status == -signal.SIGINT else status

    def stderr(self) -> str:
        """What it said to people. Fails when that is a traceback."""
        said = self.log.read_text()
        assert not is_noisy(said), said
        return said

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait_until(self, holds: Callable[[dict[str, Any]], bool], timeout_s: float = DEADLINE_S) -> dict[str, Any]:
        """The next event for which this holds."""
        deadline_s = time.monotonic() + timeout_s
        while (event := self.next_event(deadline_s)) is not None:
            if holds(event):
                return event
        raise self.failure(f"did not say it within {timeout_s:g} s")


class Cli:
    """`swarm …` as a user runs it. run() waits for its end, start() leaves it running."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: list[Process] = []

    def run(self, *arguments: object, timeout_s: float = DEADLINE_S) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "swarm", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)

    def fail(self, *arguments: object, status: int, timeout_s: float = DEADLINE_S) -> str:
        """The message of a command that must fail with this status, and with nothing but a message."""
        ran = self.run(*arguments, timeout_s=timeout_s)
        assert ran.returncode == status, f"status {ran.returncode}: {ran.stderr}{ran.stdout}"
        assert not is_noisy(ran.stderr), ran.stderr
        last = ran.stderr.rstrip().splitlines()[-1]
        assert last.startswith(("error: ", "Error: ")), ran.stderr
        return last.partition(": ")[2]

    def start(self, *arguments: object) -> Process:
        log = self.folder / f"{len(self._children)}-{arguments[0]}.log"
        self._children.append(Process(str(arguments[0]), [*map(str, arguments), "--json"], log))
        return self._children[-1]

    def node(self, magnet: str, name: str, *options: object) -> Process:
        """A node whose data dir is `name` below the test's folder."""
        return self.start("node", "start", magnet, *LOOPBACK, "--data-dir", self.folder / name, *options)

    def seed(self, source: Path, *options: object) -> str:
        """Seed from now on. -> the magnet, its x.pe included."""
        child = self.start("release", "seed", source, *LOOPBACK, "--listen", "127.0.0.1:0", *options)
        return str(child.wait_for("seeding", DEADLINE_S)["magnet"])

    def create(self, folder: Path, *options: object) -> str:
        """-> the magnet of a release that nobody seeds."""
        created = self.run("release", "create", folder, "--json", *options)
        assert created.returncode == 0, created.stderr
        return str(json.loads(created.stdout)["magnet"])

    def close(self) -> None:
        for child in self._children:
            if child.is_running:
                with contextlib.suppress(ProcessLookupError):
                    child.signal(9)
            child.status()


class Wire:
    """A TCP proxy in front of a node, whose two directions can be cut without a word: what comes in is swallowed.

    to_node, from_node: whether bytes pass. address: what to dial instead of the node.
    """

    def __init__(self, target: Address) -> None:
        self.to_node = self.from_node = True
        self.address = target
        self._target = target
        self._pumps: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.address = Address("127.0.0.1", self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        await self._server.wait_closed()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward, back = await asyncio.open_connection(self._target.host, self._target.port)
        except OSError:
            writer.close()
            return
        for pump in (self._pump(reader, back, "to_node"), self._pump(onward, writer, "from_node")):
            task = asyncio.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        try:
            while data := await reader.read(1 << 16):
                if getattr(self, direction):
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture
def wire_to() -> type[Wire]:
    """async with wire_to(address) as wire"""
    return Wire


def is_noisy(stderr: str) -> bool:
    """A traceback, a bug report, or what Python says by itself: nothing that a user should have to read."""
    return any(word in stderr for word in ("Traceback", "this is a bug", "Exception ignored", "never retrieved"))


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread for each child, and no config of the user's."""
    config = tmp_path_factory.mktemp("config") / "config.toml"
    config.touch()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"SWARM_CONFIG": str(config), "SWARM_THREADS": "1", "OMP_NUM_THREADS": "1"}.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    cli = Cli(tmp_path)
    yield cli
    cli.close()


@pytest.fixture(scope="module")
def module_cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    cli = Cli(tmp_path_factory.mktemp("cli"))
    yield cli
    cli.close()


@pytest.fixture(scope="session")
def wordy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a six-layer Mixtral in fp32 with a tokenizer and a short context; treat it as read-only."""
    import dataclasses

    from node.weights import PRESETS, write_release

    folder = tmp_path_factory.mktemp("wordy") / "wordy"
    args = dataclasses.replace(PRESETS["tiny-mixtral"].args, vocab_size=32768, max_positions=512)
    write_release(args, folder, n_shards=2, dtype="fp32", tokenizer="v3")
    return folder


@pytest.fixture(scope="module")
def seeded(module_cli: Cli, wordy: Path) -> str:
    """The magnet of `wordy`, seeded by a process of its own."""
    return module_cli.seed(wordy)


@pytest.fixture
def copy(wordy: Path, tmp_path: Path) -> Path:
    """`wordy` to break."""
    import shutil

    return Path(shutil.copytree(wordy, tmp_path / "copy"))
