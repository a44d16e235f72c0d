"""The node process: wires the rooms together, from a magnet link to a serving stage, and takes them down again.

A life: torrent -> metadata -> layout -> gRPC up, state joining -> layers fetched, loaded and served one
by one -> serving -> draining -> gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from typing import Any

import torch

from node.config import NodeConfig
from node.hosting import (
    FetchProgress,
    Holding,
    Hosted,
    free_memory_bytes,
    host,
    layers_that_fit,
    measure_layer_time,
    numerics_of,
    own_key,
    pick_device,
    settle_profile,
    tell_sharing,
    want_held,
)
from node.model import SpanModel
from node.moving import Claims, Mover, told_placement
from node.placement import Budget, PlacementConfig
from node.reach import ReachKeeper
from node.server import DialBack, Door, FactsHandler, Parts, RelayConfig, RelayHandler, SessionHandler, Statement
from node.stage import Stage, StageConfig
from swarm import __version__
from swarm.client.network import NetworkConfig, RpcFactsPort
from swarm.client.reach import Reach, Verdict, reach_fields
from swarm.client.release import fetch_metadata, read_admitted_layout
from swarm.discovery import Discovery
from swarm.errors import BadArgument, StageFull
from swarm.facts import NodeState, SignedFact
from swarm.identity import NodeKey, issue
from swarm.release import ModelArgs, ReleaseLayout
from swarm.rpc import Dialer, RpcServer
from swarm.terms import Address, Span
from swarm.torrent import Download, Magnet, Torrent, TorrentSession

OnEvent = Callable[[str, dict[str, Any]], None]
"""(event name, its fields): started, metadata, provenance, listening, reach, placement, layout, serving, progress,
ready, moving, moved, sharing, draining, stopped.
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
        self.listen = config.listen or Address("127.0.0.1" if self.network.name == "loopback" else "0.0.0.0", 0)
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
            node = self._node = await self._enter(stack)
            serving = asyncio.create_task(node.join_and_serve(stack))
            stopping = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not serving.done():
                    await node.drain()
                    await node.leave()
            finally:
                stopping.cancel()
                serving.cancel()
                await asyncio.gather(serving, stopping, return_exceptions=True)
            if not serving.cancelled():
                serving.result()  # raises what stopped it
        self.on_event("stopped", {})

    async def propose(self) -> dict[str, Any]:
        """What it would host now, and why: the fields of the event `placement`. Raises: SwarmError."""
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        async with AsyncExitStack() as stack:
            return await (await self._enter(stack)).propose()

    async def _enter(self, stack: AsyncExitStack) -> _Node:
        """The node's key, its torrent and its way to others, for as long as the stack."""
        key = NodeKey.load_or_create(stack.enter_context(own_key(self._dir)))
        torrents = await stack.enter_async_context(TorrentSession(self.network.torrent))
        download = await torrents.add(self.magnet, self._dir / "content", peers=self.magnet.peers)
        self.on_event("started", {"version": __version__, "node_id": key.node_id, "torrent_port": torrents.port})
        dialer = Dialer(issue(key), self.network.rpc)
        stack.push_async_callback(dialer.close)
        node = _Node(self, key, torrents, download, dialer)
        stack.push_async_callback(node.discovery.close)
        stack.push_async_callback(download.save_resume)
        return node


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
        self.said = Statement(key, app.magnet.infohash, app.listen, torrents.port, app.config.profile, __version__)
        self._door = Door()
        self.said.relay = RelayHandler(RelayConfig(rate=app.config.relay_rate))
        self._server: RpcServer | None = None
        self._stage: Stage | None = None
        self._n_experts_told = 0
        self._moving: asyncio.Task[None] | None = None
        self.discovery = Discovery(
            app.magnet.infohash,
            RpcFactsPort(dialer),
            app.network.discovery,
            rendezvous=app.network.rendezvous(torrents, app.listen),
            static_peers=app.config.peers,
            own=self.own_fact,
            announces=app.network.name == "loopback" or not app.listen.is_loopback,
        )
        self.said.discovery = self.discovery

    async def join_and_serve(self, stack: AsyncExitStack) -> None:
        config, event = self._config, self._app.on_event
        exchanging = asyncio.create_task(self.discovery.run())
        stack.push_async_callback(_cancel, exchanging)
        introducing = asyncio.create_task(self._introduce())
        stack.push_async_callback(_cancel, introducing)
        torrent, args = await self._read_release()
        stack.push_async_callback(_cancel, asyncio.create_task(self._fetch_early(torrent, args)))
        budget = await self._measure(args)
        parts = Parts(self._key.node_id, self.said, self.discovery, self._dialer, self._app.device, stack)
        server = RpcServer(
            issue(self._key),
            self._app.network.rpc,
            stage=self._door,
            experts=parts.experts_service(args),
            node=FactsHandler(self.discovery, self.own_fact, DialBack(self._dialer, self.own_fact)),
            relay=self.said.relay,
        )
        self._server = server
        bound = await server.start(self._app.listen)
        stack.push_async_callback(server.stop, 0.0)
        await self._come_within_reach(bound, stack)
        self.said.n_layers, self.said.n_experts = args.n_layers, args.n_experts  # from here on there is a fact to tell
        event("listening", {"listen": str(bound), "address": str(self.said.reach.address)})
        claims = self._claims(budget) if budget is not None and not config.names_parts else None
        if claims is None:
            self.said.hold(self._holding(args))
        else:
            event("placement", told_placement(await claims.choose(), claims.budget))
        holding = self.said.holding
        words = holding.as_event()
        event("layout", {**words, "n_layers": args.n_layers, "profile": str(self.said.profile)})
        layout = await self._read_layout(torrent, holding)
        await self._fetch(layout, self._serve(layout.args, parts, budget, stack))
        if self.said.state is NodeState.JOINING:
            self._change(NodeState.SERVING)
        fetched = self.said.progress.as_event() if self.said.progress is not None else {}
        event("ready", {"address": str(self.said.reach.address), **words, **fetched})
        sharing = asyncio.create_task(tell_sharing(self._download, self._app.on_event, self._on_given))
        stack.push_async_callback(_cancel, sharing)
        if claims is not None and self.said.state is NodeState.SERVING:
            self._moving = asyncio.create_task(self._keep_placed(torrent, claims, parts))
            stack.push_async_callback(_cancel, self._moving)
        await exchanging  # for as long as the node lives

    async def propose(self) -> dict[str, Any]:
        """What this node would host now, and why. Nothing is claimed, fetched or told to anybody."""
        _, args = await self._read_release()
        budget = await self._measure(args)
        if budget is None:
            raise BadArgument("there is nothing to choose where --trunk or --experts say what to host")
        await self.discovery.refresh()
        return told_placement(self._claims(budget).look(args.n_layers, time.time()), budget)

    async def drain(self) -> None:
        """Take no new sessions, say so, and give the running ones drain_timeout_s to end."""
        if self._stage is None or self._door.sessions is None:
            self._change(NodeState.DRAINING)  # whoever asks for experts here asks others from now on
            return
        if self._moving is not None:
            await _cancel(self._moving)
        self.said.relay.close()
        self._door.sessions.draining = True
        self._change(NodeState.DRAINING)
        fields = {"sessions": self._stage.n_sessions, "timeout_s": self._config.drain_timeout_s}
        self._app.on_event("draining", fields)
        deadline_s = time.monotonic() + self._config.drain_timeout_s
        while self._stage.n_sessions and time.monotonic() < deadline_s:
            await asyncio.sleep(0.05)

    async def leave(self) -> None:
        """Tell others that this node is gone, so that nobody waits for its last fact to expire."""
        self.said.state = NodeState.LEFT
        self.said.withdraw()
        await self.discovery.say_goodbye()

    def own_fact(self) -> SignedFact | None:
        """This node's newest fact; None before the config is read."""
        return self.said.signed(self.discovery.fact_ttl_s)

    @property
    def n_sessions(self) -> int:
        return 0 if self._stage is None else self._stage.n_sessions

    # -- steps of joining ----------------------------------------------------------------------------------------

    async def _come_within_reach(self, bound: Address, stack: AsyncExitStack) -> None:
        """Find out where others dial this node, and go on finding out. On one machine nothing stands in between."""
        keeper = ReachKeeper(
            self._key.node_id, self._dialer, self.discovery, bound, self._on_reach,
            network=self._app.network.name, advertise=self._config.advertise,
        )  # fmt: skip
        self.said.reach = await keeper.begin(self._torrents)
        if self._config.advertise is not None or not bound.is_loopback:
            stack.push_async_callback(_cancel, asyncio.create_task(keeper.run()))

    async def _read_release(self) -> tuple[Torrent, ModelArgs]:
        """What the magnet names."""
        torrent = await fetch_metadata(self._download, self._app.magnet, self._config.metadata_timeout_s)
        fields = {"name": torrent.name, "total_bytes": torrent.total_bytes, "piece_size": torrent.piece_size}
        self._app.on_event("metadata", fields)
        args = (await self._read_layout(torrent, Holding())).args
        self._holding(args)  # refuses what the model does not have
        return torrent, args

    async def _fetch_early(self, torrent: Torrent, args: ModelArgs) -> None:
        """What the owner named comes while this machine is still measured. Whatever goes wrong does so again later."""
        if holding := self._holding(args):
            await want_held(self._download, await self._read_layout(torrent, holding), holding, self._make_room)

    async def _read_layout(self, torrent: Torrent, holding: Holding) -> ReleaseLayout:
        layout, provenance = await read_admitted_layout(
            self._download, torrent, holding.spans, self._config.admission, experts=holding.experts,
            trunks=holding.trunks, stall_timeout_s=self._config.stall_timeout_s,
        )  # fmt: skip
        if not holding:
            fields = {"signer": provenance.signer, "licence": provenance.licence, "words": provenance.words}
            self._app.on_event("provenance", fields)
        return layout

    def _holding(self, args: ModelArgs) -> Holding:
        """What the user said. Raises: BadArgument for what the model does not have."""
        return Holding.of(args, self._config.spans, self._config.trunks, self._config.experts)

    async def _measure(self, args: ModelArgs) -> Budget | None:
        """What this machine gives: profile, layers by memory and disk, their speed by a real step, its link.

        None for a host of trunks or experts alone: a whole layer, made up to measure it, may be more than fits it.
        """
        config, device = self._config, self._app.device
        self.said.profile = await asyncio.to_thread(settle_profile, config.profile, config.exact, args, device)
        numerics = numerics_of(self.said.profile)
        if config.names_parts:
            n_layers = sum(map(len, self._holding(args).spans))
            if not n_layers:
                return None
        else:
            n_layers = layers_that_fit(args, numerics, self._memory_bytes(), config.disk_bytes)
        layer_time_s = await asyncio.to_thread(measure_layer_time, args, numerics, device)
        if config.upload_rate:
            self.said.max_tokens_per_s = config.upload_rate / (args.dim * numerics.dtype.itemsize)
        return Budget(n_layers, layer_time_s, self.said.max_tokens_per_s)

    def _memory_bytes(self) -> int:
        return self._config.memory_bytes or free_memory_bytes(self._app.device)

    def _claims(self, budget: Budget) -> Claims:
        placement = PlacementConfig.for_network(self._app.network.name)
        return Claims(self._key.node_id, self.discovery, self.said, budget, placement)

    async def _keep_placed(self, torrent: Torrent, claims: Claims, parts: Parts) -> None:
        """Move where the swarm needs this node more, for as long as it serves."""
        assert self._stage is not None

        async def load(spans: tuple[Span, ...], keep: tuple[Span, ...]) -> dict[Span, SpanModel]:
            layout = await self._read_layout(torrent, Holding((*spans, *keep)))
            hosted = parts.empty(layout.args, Holding(spans))
            needed = parts.memory_of(layout.args, hosted.holding)
            if needed > free_memory_bytes(self._app.device):
                raise StageFull(f"{needed} bytes of memory are needed to move, and not free")
            await self._fetch(layout, hosted, keep)
            return hosted.models

        await Mover(claims, self._stage, load, self._app.on_event, self._config.drain_timeout_s).run()

    async def _make_room(self, pieces: Collection[int]) -> None:
        await self._torrents.make_room(self._download, pieces, self._config.disk_bytes)

    async def _fetch(self, layout: ReleaseLayout, hosted: Hosted, keep: tuple[Span, ...] = ()) -> None:
        """Fetch and load what is hosted; keep: what is served already. Only one that serves nothing yet tells of it."""
        await host(
            self._download,
            layout,
            hosted,
            stall_timeout_s=self._config.stall_timeout_s,
            on_progress=(lambda progress: None) if keep else self._on_progress,
            on_loaded=(lambda spans: None) if keep else self._on_loaded,
            make_room=self._make_room,
            keep=keep,
        )

    def _serve(self, args: ModelArgs, parts: Parts, budget: Budget | None, stack: AsyncExitStack) -> Hosted:
        """The stage, open for sessions on what of its models is loaded: at first on nothing. None for experts alone."""
        hosted = parts.empty(args, self.said.holding)
        if not hosted.models:
            return hosted
        to_come = parts.memory_of(args, hosted.holding)
        cache_bytes = self._config.cache_budget_bytes or max(1, self._memory_bytes() - to_come) // 4
        stage_config = StageConfig(cache_budget_bytes=max(1, cache_bytes), max_sessions=self._config.max_sessions)
        self._stage = self.said.stage = Stage(args, hosted.models, stage_config, self._app.device)
        self._stage.set_loaded(())
        if budget is not None:
            self._stage.layer_time_s = budget.layer_time_s
        stack.callback(self._stage.shut_down)
        self._door.sessions = SessionHandler(
            self._key.node_id, self.discovery.release, self.said.profile, self._stage, self._dialer
        )
        return hosted

    def _on_loaded(self, spans: tuple[Span, ...]) -> None:
        """Serve these layers, and say so, while the others are still on their way."""
        n_experts = len(self.said.store.ids) if self.said.store is not None else 0
        if self._server is None or (spans, n_experts) == (self.said.loaded, self._n_experts_told):
            return
        are_new = spans != self.said.loaded
        self.said.loaded, self._n_experts_told = spans, n_experts
        if self._stage is not None:
            self._stage.set_loaded(spans)
        if self.said.state is NodeState.JOINING:
            self._server.set_serving(True)
            if are_new:
                fields = {"address": str(self.said.reach.address), "loaded_spans": [str(s) for s in spans]}
                self._app.on_event("serving", fields)
            self._change(NodeState.JOINING)

    async def _introduce(self) -> None:
        """Tell the torrent of the nodes that were met: they seed what they host."""
        while True:
            self._download.add_peers(self.discovery.torrent_peers())
            await asyncio.sleep(min(1.0, self.discovery.config.exchange_interval_s))

    # -- what this node says of itself ---------------------------------------------------------------------------

    def _on_progress(self, progress: FetchProgress) -> None:
        self.said.progress = progress
        self._app.on_event("progress", progress.as_event())

    def _on_reach(self, reach: Reach, verdict: Verdict) -> None:
        if reach != self.said.reach:
            self.said.reach = reach
            self.said.withdraw()
            self.discovery.announce_change()
            self._app.on_event("reach", reach_fields(reach, verdict))

    def _on_given(self, uploaded_bytes: int, downloaded_bytes: int) -> None:
        self.said.uploaded_bytes, self.said.downloaded_bytes = uploaded_bytes, downloaded_bytes
        self.said.withdraw()

    def _change(self, state: NodeState) -> None:
        self.said.state = state
        self.said.withdraw()
        self.discovery.announce_change()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
