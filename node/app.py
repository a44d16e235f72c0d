"""The node process: wires the rooms together, from a magnet link to a serving stage, and takes them down again.

A life: torrent -> metadata -> layout -> gRPC up, state joining -> layers fetched, loaded and served one
by one -> serving -> draining -> gone.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import torch

from node.config import NodeConfig
from node.hosting import (
    FetchProgress,
    choose_span,
    free_memory_bytes,
    host,
    numerics_of,
    own_key,
    settle_profile,
)
from node.model import SpanModel
from node.server import FactsHandler, SessionHandler
from node.stage import Stage, StageConfig
from swarm import __version__
from swarm.client.network import NetworkConfig, RpcFactsPort
from swarm.client.release import fetch_metadata, read_admitted_layout
from swarm.discovery import Discovery, sign_fact
from swarm.errors import BadArgument, StageFull
from swarm.facts import NodeFact, NodeState, SignedFact
from swarm.identity import NodeKey, issue
from swarm.messages import Failure, Open, Opened, Result, Step
from swarm.release import ModelArgs, ReleaseLayout
from swarm.rpc import Dialer, RpcServer
from swarm.terms import Address, NodeId, SessionId, Span, merge_spans
from swarm.torrent import Download, Magnet, Torrent, TorrentSession

SHARING_INTERVAL_S = 10.0
"""How often a node says what it gave, when that changed."""

OnEvent = Callable[[str, dict[str, Any]], None]
"""(event name, its fields): started, metadata, provenance, listening, layout, serving, progress, ready, sharing,
draining, stopped.
"""


class NodeApp:
    """One node of one release. run() once."""

    def __init__(self, config: NodeConfig, on_event: OnEvent) -> None:
        self.config = config
        self.on_event = on_event
        self.magnet = Magnet.parse(config.magnet)
        self.network = NetworkConfig.named(config.network, config.bootstrap, config.torrent_port)
        self.network = self.network.with_rates(config.upload_rate, config.download_rate)
        self.network = self.network.with_torrent_settings(config.torrent_settings)
        self._dir = config.data_dir / "node" / self.magnet.infohash
        self.device = pick_device(config.device)
        self._node: _Node | None = None

    @property
    def n_sessions(self) -> int:
        """Sessions that its stage holds now; 0 before it serves."""
        return 0 if self._node is None else self._node.n_sessions

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until stop is set; then drain. What was fetched is kept. Raises: SwarmError when it cannot come to
        serve.
        """
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        async with AsyncExitStack() as stack:
            key = NodeKey.load_or_create(stack.enter_context(own_key(self._dir)))
            torrents = await stack.enter_async_context(TorrentSession(self.network.torrent))
            download = await torrents.add(self.magnet, self._dir / "content", peers=self.magnet.peers)
            self.on_event("started", {"version": __version__, "node_id": key.node_id, "torrent_port": torrents.port})
            dialer = Dialer(issue(key), self.network.rpc)
            stack.push_async_callback(dialer.close)
            node = self._node = _Node(self, key, torrents, download, dialer)
            stack.push_async_callback(download.save_resume)
            serving = asyncio.create_task(node.join_and_serve(stack))
            stopping = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not serving.done():
                    await node.drain()
            finally:
                stopping.cancel()
                serving.cancel()
                await asyncio.gather(serving, stopping, return_exceptions=True)
            if not serving.cancelled():
                serving.result()  # raises what stopped it
        self.on_event("stopped", {})


@dataclass(slots=True)
class _Said:
    """This node's fact as last signed."""

    signed: SignedFact
    at_s: float


class _Node:
    """The running parts. Only run() makes one."""

    def __init__(
        self, app: NodeApp, key: NodeKey, torrents: TorrentSession, download: Download, dialer: Dialer
    ) -> None:
        self._app = app
        self._config = app.config
        self._key = key
        self._torrents = torrents
        self._download = download
        self._dialer = dialer
        self._state = NodeState.JOINING
        self._address = app.config.listen
        self._args: ModelArgs | None = None
        self._profile = app.config.profile
        self._spans: tuple[Span, ...] = ()
        self._loaded: tuple[Span, ...] = ()
        self._server: RpcServer | None = None
        self._progress: FetchProgress | None = None
        self._stage: Stage | None = None
        self._sessions: SessionHandler | None = None
        self._said: _Said | None = None
        self._seq = int(time.time() * 1000)
        self.discovery = Discovery(
            app.magnet.infohash,
            RpcFactsPort(dialer),
            app.network.discovery,
            rendezvous=torrents if app.network.torrent.dht else None,
            static_peers=app.config.peers,
            own=self.own_fact,
            announces=app.network.name == "loopback" or not app.config.listen.is_loopback,
        )

    async def join_and_serve(self, stack: AsyncExitStack) -> None:
        config, event = self._config, self._app.on_event
        exchanging = asyncio.create_task(self.discovery.run())
        stack.push_async_callback(_cancel, exchanging)
        introducing = asyncio.create_task(self._introduce())
        stack.push_async_callback(_cancel, introducing)
        torrent = await fetch_metadata(self._download, self._app.magnet, config.metadata_timeout_s)
        event("metadata", {"name": torrent.name, "total_bytes": torrent.total_bytes, "piece_size": torrent.piece_size})
        args = (await self._read_layout(torrent, ())).args
        self._check_spans(args)
        self._profile = await asyncio.to_thread(settle_profile, config.profile, config.exact, args, self._app.device)
        server = RpcServer(
            issue(self._key),
            self._app.network.rpc,
            stage=_Door(self),
            node=FactsHandler(self.discovery, self.own_fact),
        )
        self._server = server
        bound = await server.start(config.listen)
        stack.push_async_callback(server.stop, 0.0)
        self._address = config.advertise or (Address(_outward_host(), bound.port) if bound.is_unspecified else bound)
        self._args = args  # from here on there is a fact to tell
        event("listening", {"listen": str(bound), "address": str(self._address)})
        self._spans = await self._choose(args)
        event(
            "layout",
            {"spans": [str(s) for s in self._spans], "n_layers": args.n_layers, "profile": str(self._profile)},
        )
        layout = await self._read_layout(torrent, self._spans)
        models = self._serve(layout.args, stack)
        await self._fetch(torrent, layout, models)
        if self._state is NodeState.JOINING:
            self._change(NodeState.SERVING)
        event("ready", {"address": str(self._address), "spans": [str(s) for s in self._spans], **self._fetched()})
        sharing = asyncio.create_task(self._tell_sharing())
        stack.push_async_callback(_cancel, sharing)
        await exchanging  # for as long as the node lives

    async def drain(self) -> None:
        """Take no new sessions, say so, and give the running ones drain_timeout_s to end."""
        if self._stage is None or self._sessions is None:
            return
        self._sessions.draining = True
        self._change(NodeState.DRAINING)
        fields = {"sessions": self._stage.n_sessions, "timeout_s": self._config.drain_timeout_s}
        self._app.on_event("draining", fields)
        deadline_s = time.monotonic() + self._config.drain_timeout_s
        while self._stage.n_sessions and time.monotonic() < deadline_s:
            await asyncio.sleep(0.05)

    def own_fact(self) -> SignedFact | None:
        """This node's newest fact, signed anew when it changed or has lived a third of its time; None before the
        config is read.
        """
        if self._args is None:
            return None
        ttl_s = self.discovery.config.fact_ttl_s
        said = self._said
        is_full = self._stage is not None and self._stage.free_sessions == 0
        if said is None or time.monotonic() - said.at_s > ttl_s / 3 or is_full != (said.signed.fact.free_sessions == 0):
            self._seq = max(self._seq + 1, int(time.time() * 1000))
            said = _Said(sign_fact(self._key, self._fact(ttl_s, self._args.n_layers)), time.monotonic())
            self._said = said
        return said.signed

    @property
    def n_sessions(self) -> int:
        return 0 if self._stage is None else self._stage.n_sessions

    @property
    def sessions(self) -> SessionHandler:
        if self._sessions is None:
            raise StageFull("this node is still joining and serves no layers yet", retry_after_s=5.0)
        return self._sessions

    # -- steps of joining ----------------------------------------------------------------------------------------

    async def _read_layout(self, torrent: Torrent, spans: tuple[Span, ...]) -> ReleaseLayout:
        stall_timeout_s = self._config.stall_timeout_s
        layout, provenance = await read_admitted_layout(
            self._download, torrent, spans, self._config.admission, stall_timeout_s=stall_timeout_s
        )
        if not spans:
            fields = {"signer": provenance.signer, "licence": provenance.licence, "words": provenance.words}
            self._app.on_event("provenance", fields)
        return layout

    def _check_spans(self, args: ModelArgs) -> None:
        """Raises: BadArgument for layers that the model does not have."""
        for span in self._config.spans:
            if span.end > args.n_layers:
                raise BadArgument(f"--layers {span} ends beyond the model's layers; write at most 0:{args.n_layers}")

    async def _choose(self, args: ModelArgs) -> tuple[Span, ...]:
        if self._config.spans:
            return merge_spans(self._config.spans)
        await self.discovery.refresh()
        hosts = [0] * args.n_layers
        for fact in self.discovery.nodes():
            for span in fact.spans:
                for layer_idx in span:
                    hosts[layer_idx] += 1
        memory = free_memory_bytes(self._app.device)
        numerics = numerics_of(self._profile)
        return (choose_span(args, hosts, memory, numerics.dtype.itemsize, numerics.layer_bytes_per_value),)

    async def _fetch(self, torrent: Torrent, layout: ReleaseLayout, models: dict[Span, SpanModel]) -> None:
        await host(
            self._download,
            torrent,
            layout,
            models,
            stall_timeout_s=self._config.stall_timeout_s,
            on_progress=self._on_progress,
            on_loaded=self._on_loaded,
            make_room=lambda pieces: self._torrents.make_room(self._download, pieces, self._config.disk_bytes),
        )

    def _serve(self, args: ModelArgs, stack: AsyncExitStack) -> dict[Span, SpanModel]:
        """The stage, open for sessions on what of its models is loaded: at first on nothing."""
        device, numerics = self._app.device, numerics_of(self._profile)
        models = {span: SpanModel(args, span, numerics, device=device) for span in self._spans}
        to_come = sum(map(len, self._spans)) * int(args.n_layer_params * numerics.layer_bytes_per_value)
        budget = self._config.cache_budget_bytes or max(1, free_memory_bytes(device) - to_come) // 4
        stage_config = StageConfig(cache_budget_bytes=max(1, budget), max_sessions=self._config.max_sessions)
        self._stage = Stage(args, models, stage_config, device)
        self._stage.set_loaded(())
        stack.callback(self._stage.shut_down)
        self._sessions = SessionHandler(
            self._key.node_id, self.discovery.release, self._profile, self._stage, self._dialer
        )
        return models

    def _on_loaded(self, spans: tuple[Span, ...]) -> None:
        """Serve these layers, and say so, while the others are still on their way."""
        if self._stage is None or self._server is None or spans == self._loaded:
            return
        self._loaded = spans
        self._stage.set_loaded(spans)
        if self._state is NodeState.JOINING:
            self._server.set_serving(True)
            self._app.on_event("serving", {"address": str(self._address), "loaded_spans": [str(s) for s in spans]})
            self._change(NodeState.JOINING)

    async def _tell_sharing(self) -> None:
        """Say now and then what this node gave to others, when it gave something."""
        told = -1
        while True:
            status = self._download.status()
            if status.uploaded_ever_bytes != told:
                told = status.uploaded_ever_bytes
                ratio = status.share_ratio
                fields = {"uploaded_bytes": told, "fetched_bytes": status.fetched_ever_bytes}
                fields |= {"upload_rate": status.upload_rate, "n_peers": status.n_peers}
                self._app.on_event("sharing", {**fields, "share_ratio": None if ratio is None else round(ratio, 4)})
            await asyncio.sleep(SHARING_INTERVAL_S)

    async def _introduce(self) -> None:
        """Tell the torrent of the nodes that were met: they seed what they host."""
        while True:
            self._download.add_peers(self.discovery.torrent_peers())
            await asyncio.sleep(min(1.0, self.discovery.config.exchange_interval_s))

    # -- what this node says of itself ---------------------------------------------------------------------------

    def _on_progress(self, progress: FetchProgress) -> None:
        self._progress = progress
        self._app.on_event("progress", self._fetched())

    def _fetched(self) -> dict[str, Any]:
        p = self._progress
        if p is None:
            return {}
        return {
            "layers_loaded": p.layers_loaded,
            "layers_total": p.layers_total,
            "needed_bytes": p.needed_bytes,
            "planned_bytes": p.planned_bytes,
            "fetched_bytes": p.fetched_bytes,
            "have_bytes": p.have_bytes,
            "release_bytes": p.release_bytes,
            "download_rate": p.download_rate,
            "upload_rate": p.upload_rate,
            "n_peers": p.n_peers,
            "pieces_here": p.pieces_here,
            "pieces_planned": p.pieces_planned,
        }

    def _change(self, state: NodeState) -> None:
        self._state = state
        self._said = None
        self.discovery.announce_change()

    def _fact(self, ttl_s: float, n_layers: int) -> NodeFact:
        progress, stage = self._progress, self._stage
        return NodeFact(
            node_id=self._key.node_id,
            release=self.discovery.release,
            address=self._address,
            seq=self._seq,
            issued_at_s=time.time(),
            ttl_s=ttl_s,
            state=self._state,
            spans=self._spans,
            profile=self._profile,
            n_layers=n_layers,
            free_sessions=stage.free_sessions if stage is not None else 0,
            layer_time_s=stage.layer_time_s if stage is not None else 0.0,
            torrent_port=self._torrents.port,
            needed_bytes=progress.needed_bytes if progress is not None else 0,
            fetched_bytes=progress.fetched_bytes if progress is not None else 0,
            version=__version__,
            loaded_spans=self._loaded if self._state is NodeState.JOINING else (),
        )


class _Door:
    """The Stage service from the first moment on: refuses until there is a stage."""

    def __init__(self, node: _Node) -> None:
        self._node = node

    def run(self, opening: Open, steps: AsyncIterator[Step], caller: NodeId) -> AsyncIterator[Opened | Failure]:
        return self._node.sessions.run(opening, steps, caller)

    def results(self, session_id: SessionId, epoch: int, caller: NodeId) -> AsyncIterator[Result]:
        return self._node.sessions.results(session_id, epoch, caller)


def pick_device(name: str) -> torch.device:
    """'auto': CUDA, else Apple's MPS, else the CPU. Raises: BadArgument when the named one is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, is_there in there.items() if is_there)
    if not there[name]:
        raise BadArgument(f"this machine (or this build of torch) has no {name}; use --device auto")
    return torch.device(name)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _outward_host() -> str:
    """The address of the interface that leads outwards. Connecting a UDP socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1, RFC 5737
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
