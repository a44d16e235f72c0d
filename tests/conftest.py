"""What every kind of test stands on: synthetic releases, built once per run, and one compute thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from node.config import NodeConfig
    from swarm.client import AsyncClient
    from swarm.gateway.server import Gateway
    from swarm.torrent import Download, Torrent, TorrentSession
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("SWARM_NETWORK", "loopback")

# A shell that runs the tests in its background has them ignore Ctrl-C, and each child that they interrupt with them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine stalls for longer than any one example takes.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

Release = Callable[..., Path]
"""release("tiny-mixtral", format="hf", dtype="fp32") -> the folder of that synthetic release; treat it as read-only."""


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    made: dict[tuple[str, str, str], Path] = {}

    def make(preset: str, format: str = "hf", dtype: str = "fp32") -> Path:
        from node.weights import write_preset

        key = (preset, format, dtype)
        if key not in made:
            folder = tmp_path_factory.mktemp("release") / f"{preset}-{format}-{dtype}"
            write_preset(preset, folder, format=format, dtype=dtype)
            made[key] = folder
        return made[key]

    return make


@pytest.fixture(autouse=True, scope="session")
def _one_compute_thread() -> None:
    import torch

    torch.set_num_threads(1)


class LocalSwarm:
    """A published release on loopback, its seeder, and nodes that run in this process.

    start(...) returns once the node serves. Everything ends with the fixture.
    """

    def __init__(self, folder: Path, work_dir: Path) -> None:
        self.folder = folder
        self.work_dir = work_dir
        self.magnet = ""
        self.torrent: Torrent
        self.seeding: Download
        self._seeder: TorrentSession | None = None
        self._nodes: list[LocalNode] = []

    async def publish(self, piece_size: int | None = None) -> str:
        from swarm.terms import Address
        from swarm.torrent import TorrentConfig, TorrentSession, create_torrent

        self.torrent = create_torrent(self.folder, piece_size=piece_size or 256 << 10)
        self._seeder = TorrentSession(TorrentConfig.loopback())
        await self._seeder.start()
        self.seeding = await self._seeder.seed(self.torrent, self.folder.parent, verified=True)
        self.magnet = str(self.torrent.magnet(peers=(Address("127.0.0.1", self._seeder.port),)))
        return self.magnet

    async def stop_seeding(self) -> None:
        if self._seeder is not None:
            await self._seeder.close()
            self._seeder = None

    async def start(self, *spans: str, wait: bool = True, **config: object) -> LocalNode:
        from node.config import NodeConfig
        from swarm.terms import Profile, Span

        settings: dict[str, object] = {
            "magnet": self.magnet,
            "data_dir": self.work_dir / f"node-{len(self._nodes)}",
            "spans": tuple(map(Span.parse, spans)),
            "profile": Profile("fp32"),
            "device": "cpu",
            "network": "loopback",
            "cache_budget_bytes": 256 << 20,
            "drain_timeout_s": 0.0,
            **config,
        }
        node = LocalNode(NodeConfig(**settings))  # type: ignore[arg-type]
        self._nodes.append(node)
        if wait:
            await node.event("ready")
        return node

    def client(self, **settings: object) -> AsyncClient:
        from swarm.client import connect_async

        known = {"network": "loopback", "data_dir": self.work_dir / "client", "timeout_s": 20.0, **settings}
        return connect_async(self.magnet, **known)  # type: ignore[arg-type]

    async def close(self) -> None:
        await asyncio.gather(*(node.stop() for node in self._nodes))
        await self.stop_seeding()


class LocalNode:
    """One NodeApp as a task. events: the fields of each event, by name, newest last."""

    def __init__(self, config: NodeConfig) -> None:
        from node.app import NodeApp

        self.config = config
        self.events: dict[str, list[dict[str, object]]] = {}
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._app = NodeApp(config, self._on_event)
        self.task = asyncio.create_task(self._app.run(self._stop))

    @property
    def n_sessions(self) -> int:
        """Sessions that its stage holds now."""
        return 0 if self._app.stage is None else self._app.stage.n_sessions

    @property
    def cache_bytes(self) -> int:
        """Memory of the KV pages of its stage."""
        return 0 if self._app.stage is None else self._app.stage.cache_bytes

    @property
    def asked(self) -> Counter[str]:
        """How many messages it sent to each host of experts."""
        assert self._app._node is not None and self._app._node.said.dispatcher is not None
        return self._app._node.said.dispatcher.asked

    def _on_event(self, event: str, fields: dict[str, object]) -> None:
        self.events.setdefault(event, []).append(fields)
        self._changed.set()

    async def event(self, name: str, timeout_s: float = 60.0) -> dict[str, object]:
        """The newest `name` event, once there is one; raises what ended the node if it ended first."""
        async with asyncio.timeout(timeout_s):
            while name not in self.events:
                if self.task.done():
                    self.task.result()
                    raise AssertionError(f"the node ended without {name}")
                self._changed.clear()
                changed = asyncio.create_task(self._changed.wait())
                await asyncio.wait((changed, self.task), return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
        return self.events[name][-1]

    async def stop(self) -> None:
        """Stop it as Ctrl-C would."""
        self._stop.set()
        await asyncio.gather(self.task, return_exceptions=True)

    async def kill(self) -> None:
        """Stop it in the middle of whatever it does."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def local_swarm(tmp_path: Path) -> AsyncIterator[Callable[[Path], LocalSwarm]]:
    """local_swarm(folder) -> a LocalSwarm of that release; call publish() on it first."""
    swarms: list[LocalSwarm] = []

    def make(folder: Path) -> LocalSwarm:
        swarms.append(LocalSwarm(folder, tmp_path / f"swarm-{len(swarms)}"))
        return swarms[-1]

    yield make
    for swarm in swarms:
        await swarm.close()


@pytest.fixture(scope="session")
def make_local_swarm() -> type[LocalSwarm]:
    """For fixtures that outlive a test: they close what they made."""
    return LocalSwarm


@pytest.fixture(scope="session")
def speaking_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest release that has a real tokenizer (v3: chat, FIM, tools): three layers, 512 positions."""
    from node.weights import write_release
    from swarm.release import ModelArgs

    args = ModelArgs(
        architecture="mixtral",
        dim=64,
        n_layers=3,
        n_heads=4,
        n_kv_heads=2,
        head_dim=16,
        hidden_dim=96,
        vocab_size=32768,
        norm_eps=1e-5,
        rope_theta=1e6,
        n_experts=2,
        n_experts_per_tok=1,
        max_positions=512,
    )
    folder = tmp_path_factory.mktemp("release") / "speaking"
    write_release(args, folder, dtype="fp32", tokenizer="v3")
    return folder


OpenGateway = Callable[..., contextlib.AbstractAsyncContextManager["Gateway"]]


@pytest.fixture(scope="session")
def open_gateway() -> OpenGateway:
    """`async with open_gateway(swarm, **settings) as gateway`: on any free port, for a published LocalSwarm.

    It is ready then, unless wait=False.
    """

    @contextlib.asynccontextmanager
    async def open_for(swarm: LocalSwarm, *, wait: bool = True, **settings: Any) -> AsyncIterator[Gateway]:
        from swarm.gateway import GatewayConfig
        from swarm.gateway.server import Gateway
        from swarm.terms import Address

        known = {"timeout_s": 20.0, "drain_timeout_s": 0.0, "default_max_tokens": 24, **settings}
        where = {"listen": Address("127.0.0.1", 0), "network": "loopback", "data_dir": swarm.work_dir / "gateway"}
        async with Gateway(GatewayConfig(magnets=(swarm.magnet,), **{**where, **known})) as gateway:
            async with asyncio.timeout(120):
                while wait and not all(one.is_ready for one in await gateway.services.registry.readiness()):
                    await asyncio.sleep(0.05)
            yield gateway

    return open_for
