"""The node process: wires the rooms together, from a magnet link to a serving stage, and takes them down again.

A life: torrent -> metadata -> layout -> gRPC up, state joining -> layers fetched, loaded and served one
by one -> serving -> draining -> gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import torch

from node.config import NodeConfig, OnEvent
from node.hosting import (
    FetchProgress,
    Holding,
    Hosted,
    cache_budget,
    free_memory_bytes,
    host,
    introduce,
    numerics_of,
    own_key,
    pick_device,
    settle_profile,
    tell_sharing,
    want_held,
)
from node.model import kernels
from node.moving import Claims, Mover, OnLoaded, PartClaims, claims_for, measure, unserved
from node.notes import note_path
from node.placement import Budget, PartsBudget
from node.reach import ReachKeeper
from node.server import (
    DialBack,
    Door,
    FactsHandler,
    NoteKeeper,
    Parts,
    RelayConfig,
    RelayHandler,
    SessionHandler,
    Statement,
    drain,
)
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
from swarm.torrent import Download, Torrent, TorrentSession, magnet_of


class NodeApp:
    """One node of one release. run() once."""

    def __init__(self, config: NodeConfig, on_event: OnEvent) -> None:
        self.config = config
        self.on_event = on_event
        self.magnet = magnet_of(config.magnet)
        self.network = NetworkConfig.named(config.network, config.bootstrap, config.torrent_port)
        self.network = self.network.with_rates(config.upload_rate, config.download_rate)
        self.network = self.network.with_torrent_settings(config.torrent_settings)
        self.listen = config.listen or Address("127.0.0.1" if self.network.name == "loopback" else "0.0.0.0", 0)
        self._dir = config.data_dir / "node" / self.magnet.infohash
        self.device = pick_device(config.device)
        self._node: _Node | None = None

    @property
    def stage(self) -> Stage | None:
        """What its sessions run on; None before it serves."""
        return None if self._node is None else self._node.said.stage

    async def run(self, stop: asyncio.Event, hand_over: asyncio.Event | None = None) -> None:
        """Serve until stop is set; then drain, and once hand_over is set as well leave the sessions to others. What was
        fetched is kept. Raises: SwarmError when it cannot come to serve.
        """
        async with AsyncExitStack() as stack:
            node = self._node = await self._enter(stack)
            stack.push_async_callback(_cancel, asyncio.create_task(node.note.run()))
            serving = asyncio.create_task(node.join_and_serve(stack))
            stopping = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not serving.done():
                    await node.drain(hand_over or asyncio.Event())
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
        async with AsyncExitStack() as stack:
            return await (await self._enter(stack)).propose()

    async def _enter(self, stack: AsyncExitStack) -> _Node:
        """The node's key, its torrent and its way to others, for as long as the stack."""
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        key_path = stack.enter_context(own_key(self._dir))
        key = NodeKey.load_or_create(key_path)
        torrents = await stack.enter_async_context(TorrentSession(self.network.torrent))
        download = await torrents.add(self.magnet, self._dir / "content", peers=self.magnet.peers)
        self.on_event("started", {"version": __version__, "node_id": key.node_id, "torrent_port": torrents.port})
        dialer = Dialer(issue(key), self.network.rpc)
        stack.push_async_callback(dialer.close)
        node = _Node(self, key, torrents, download, dialer, note_path(key_path))
        stack.push_async_callback(node.discovery.close)
        stack.push_async_callback(download.save_resume)
        return node


class _Node:
    """The running parts. Only run() makes one."""

    def __init__(
        self, app: NodeApp, key: NodeKey, torrents: TorrentSession, download: Download, dialer: Dialer, noted: Path
    ) -> None:
        self._app = app
        self._config = app.config
        self._key = key
        self._torrents = torrents
        self._download = download
        self._dialer = dialer
        self.said = Statement(key, app.magnet.infohash, app.listen, torrents.port, app.config.profile, __version__)
        self.note = NoteKeeper(noted, self.said, download)
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
        introducing = asyncio.create_task(introduce(self._download, self.discovery))
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
        await self._come_within_reach(server, bound, stack)
        self.said.n_layers, self.said.n_experts = args.n_layers, args.n_experts  # from here on there is a fact to tell
        event("listening", {"listen": str(bound), "address": str(self.said.reach.address)})
        claims = None
        if budget is None or config.names_parts:
            self.said.hold(self._holding(args))
        else:
            claims = self._claims(budget, args)
            event("placement", await claims.choose())
        holding = self.said.holding
        words = {**holding.as_event(), "kernels": kernels(self._app.device)}
        event("layout", {**words, "n_layers": args.n_layers, "profile": str(self.said.profile)})
        layout = await self._read_layout(torrent, holding)
        await self._fetch(layout, self._serve(layout.args, parts, budget, stack))
        await self._download.refresh()  # its note is to tell all that came
        if self.said.state is NodeState.JOINING:
            self._change(NodeState.SERVING)
        fetched = self.said.progress.as_event() if self.said.progress is not None else {}
        event("ready", {"address": str(self.said.reach.address), **words, **fetched})
        sharing = asyncio.create_task(tell_sharing(self._download, self._app.on_event, self.said.gave))
        stack.push_async_callback(_cancel, sharing)
        if isinstance(claims, Claims) and self.said.state is NodeState.SERVING:
            self._moving = asyncio.create_task(self._keep_placed(torrent, claims, parts))
            stack.push_async_callback(_cancel, self._moving)
        await exchanging  # for as long as the node lives

    async def propose(self) -> dict[str, Any]:
        """What this node would host now, and why. Nothing is claimed, fetched or told to anybody."""
        if self._config.names_parts:
            said = "there is nothing to choose where --layers, --trunk or --experts say what to host"
            raise BadArgument(f"{said}; leave them out, or see what they fetch with `swarm release plan`")
        _, args = await self._read_release()
        budget = await self._measure(args)
        assert budget is not None
        await self.discovery.refresh()
        return self._claims(budget, args).propose(args.n_layers)

    async def drain(self, hand_over: asyncio.Event) -> None:
        """Say that this node leaves, and see its sessions off."""
        self.said.relay.close()
        if self._stage is None or self._server is None:
            self._change(NodeState.DRAINING)  # whoever asks for experts here asks others from now on
            return
        timeout_s, event = self._config.drain_timeout_s, self._app.on_event
        self.note.drain_ends_s = time.time() + timeout_s
        self._server.set_serving(False)
        if self._moving is not None:
            await _cancel(self._moving)  # its last word is what is served now, without what it was about to take
        self._change(NodeState.DRAINING)
        event("draining", {"sessions": self._stage.n_sessions, "timeout_s": timeout_s})
        await drain(self._door, self._stage, timeout_s, hand_over, lambda n: event("handing_over", {"sessions": n}))

    async def leave(self) -> None:
        """Tell others that this node is gone, so that nobody waits for its last fact to expire."""
        self.said.state = NodeState.LEFT
        self.said.withdraw()
        await self.discovery.say_goodbye()

    def own_fact(self) -> SignedFact | None:
        """This node's newest fact; None before the config is read."""
        return self.said.signed(self.discovery.fact_ttl_s)

    # -- steps of joining ----------------------------------------------------------------------------------------

    async def _come_within_reach(self, server: RpcServer, bound: Address, stack: AsyncExitStack) -> None:
        """Find out where others dial this node, and go on finding out. On one machine nothing stands in between."""
        keeper = ReachKeeper(
            self._key.node_id, self._dialer, self.discovery, bound, self._on_reach,
            back_door=server.back_door, network=self._app.network.name, advertise=self._config.advertise,
        )  # fmt: skip
        self.said.reach = await keeper.begin(self._torrents)
        if self._config.advertise is not None or not bound.is_loopback:
            stack.push_async_callback(_cancel, asyncio.create_task(keeper.run()))

    async def _read_release(self) -> tuple[Torrent, ModelArgs]:
        """What the magnet names."""
        torrent = await fetch_metadata(self._download, self._app.magnet, self._config.metadata_timeout_s)
        self.note.name = torrent.name
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

    async def _measure(self, args: ModelArgs) -> Budget | PartsBudget | None:
        """The profile, and what this machine gives. None where trunks or experts alone are named: no layer may fit."""
        config, device = self._config, self._app.device
        self.said.profile = await asyncio.to_thread(settle_profile, config.profile, config.exact, args, device)
        numerics = numerics_of(self.said.profile)
        n_layers = sum(map(len, self._holding(args).spans))
        if config.names_parts and not n_layers:
            return None
        if config.upload_rate:
            self.said.max_tokens_per_s = config.upload_rate / (args.dim * numerics.dtype.itemsize)
        return await asyncio.to_thread(
            measure, args, numerics, device, n_layers=n_layers, memory_bytes=self._memory_bytes(),
            disk_bytes=config.disk_bytes, max_tokens_per_s=self.said.max_tokens_per_s,
        )  # fmt: skip

    def _memory_bytes(self) -> int:
        return self._config.memory_bytes or free_memory_bytes(self._app.device)

    def _claims(self, budget: Budget | PartsBudget, args: ModelArgs) -> Claims | PartClaims:
        network = self._app.network.name
        return claims_for(budget, self._key.node_id, self.discovery, self.said, network, args.n_experts)

    async def _keep_placed(self, torrent: Torrent, claims: Claims, parts: Parts) -> None:
        """Move where the swarm needs this node more, for as long as it serves."""
        assert self._stage is not None

        async def load(spans: tuple[Span, ...], keep: tuple[Span, ...], on_loaded: OnLoaded) -> None:
            layout = await self._read_layout(torrent, Holding((*spans, *keep)))
            hosted = parts.empty(layout.args, Holding(spans))
            needed = parts.memory_of(layout.args, hosted.holding)
            if needed > free_memory_bytes(self._app.device):
                raise StageFull(f"{needed} bytes of memory are needed to move, and not free")
            await self._fetch(layout, hosted, keep, lambda there: on_loaded(there, hosted.models.values()))

        await Mover(claims, self._stage, load, self._app.on_event, self._config.drain_timeout_s).run()

    async def _make_room(self, pieces: Collection[int]) -> None:
        await self._torrents.make_room(self._download, pieces, self._config.disk_bytes)

    async def _fetch(
        self, layout: ReleaseLayout, hosted: Hosted, keep: tuple[Span, ...] = (),
        on_loaded: Callable[[tuple[Span, ...]], None] | None = None,
    ) -> None:  # fmt: skip
        """Fetch and load what is hosted; keep: what is served already. Only one that serves nothing yet tells of it."""
        await host(
            self._download,
            layout,
            hosted,
            stall_timeout_s=self._config.stall_timeout_s,
            on_progress=(lambda progress: None) if keep else self._on_progress,
            on_loaded=on_loaded or self._on_loaded,
            make_room=self._make_room,
            keep=keep,
            first=unserved(self.discovery, layout.args.n_layers),
        )

    def _serve(
        self, args: ModelArgs, parts: Parts, budget: Budget | PartsBudget | None, stack: AsyncExitStack
    ) -> Hosted:
        """The stage, open for sessions on what of its models is loaded: at first on nothing. None for experts alone."""
        hosted = parts.empty(args, self.said.holding)
        if not hosted.models:
            return hosted
        free = self._memory_bytes() - parts.memory_of(args, hosted.holding)
        cache_bytes = cache_budget(self._config.cache_budget_bytes, free, hosted.models)
        stage_config = StageConfig(cache_budget_bytes=cache_bytes, max_sessions=self._config.max_sessions)
        self._stage = self.said.stage = Stage(args, hosted.models, stage_config, self._app.device)
        self._stage.set_loaded(())
        if isinstance(budget, Budget):
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
                is_all = spans == self.said.holding.stages and n_experts == len(self.said.experts)
                fields = {"address": str(self.said.reach.address), "loaded_spans": [str(s) for s in spans]}
                self._app.on_event("serving", {**fields, "is_all": is_all})
            self._change(NodeState.JOINING)

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

    def _change(self, state: NodeState) -> None:
        self.said.state = state
        self.said.withdraw()
        self.note.write()
        self.discovery.announce_change()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
