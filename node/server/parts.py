"""Where what a node holds is loaded to, and the experts among it served from."""

from __future__ import annotations

from contextlib import AsyncExitStack

import torch

from node.experts import Directory, Dispatcher, ExpertHost
from node.hosting import Holding, Hosted, numerics_of
from node.model import ExpertStore, SpanModel
from node.server.experts import ExpertsHandler
from node.server.statement import Statement
from swarm.discovery import Discovery
from swarm.messages import ExpertOpen
from swarm.release import ModelArgs
from swarm.rpc import Dialer
from swarm.terms import NodeId


class Parts:
    """Models, experts and who asks for those that are elsewhere, all of one node and in its profile.

    stack: what is made here ends with it.
    """

    def __init__(
        self, node_id: NodeId, said: Statement, discovery: Discovery, dialer: Dialer, device: torch.device,
        stack: AsyncExitStack,
    ) -> None:  # fmt: skip
        self._node_id = node_id
        self._said = said
        self._discovery = discovery
        self._dialer = dialer
        self._device = device
        self._stack = stack

    def experts_service(self, args: ModelArgs) -> ExpertsHandler | None:
        """The experts that are loaded here, for others: at first none. None for a dense model."""
        if not args.is_moe:
            return None
        store = self._said.store = ExpertStore(args, numerics_of(self._said.profile), device=self._device)
        host = ExpertHost(store)
        self._stack.callback(host.close)
        return ExpertsHandler(self._node_id, self._discovery.release, self._said.profile, host)

    def empty(self, args: ModelArgs, holding: Holding) -> Hosted:
        """Models and a store that these parts can be loaded into."""
        if holding.trunks and self._said.dispatcher is None:
            self._said.dispatcher = self._dispatcher(args)
        numerics = numerics_of(self._said.profile)
        experts = self._said.store or ExpertStore(args, numerics, device=self._device)
        models = {
            span: SpanModel(
                args, span, numerics, device=self._device, trunks=holding.trunks, experts=experts,
                elsewhere=self._said.dispatcher,
            )
            for span in holding.stages
        }  # fmt: skip
        return Hosted(holding, models, experts)

    def memory_of(self, args: ModelArgs, holding: Holding) -> int:
        """Bytes that these parts take once they are loaded."""
        return int(holding.n_params(args) * numerics_of(self._said.profile).layer_bytes_per_value)

    def _dispatcher(self, args: ModelArgs) -> Dispatcher:
        shape = (args.n_layers, args.n_experts)
        directory = Directory(self._discovery.nodes, self._node_id, self._said.profile, shape)
        opening = ExpertOpen(self._discovery.release, self._said.profile)
        dispatcher = Dispatcher(directory, self._dialer, opening)
        self._stack.push_async_callback(dispatcher.close)
        return dispatcher
