"""The releases that a gateway serves: opened in the background, found by name, and asked whether they are whole."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

from swarm.client import AsyncClient, SwarmStatus, connect_async
from swarm.client.network import network_name
from swarm.errors import BadArgument, SwarmError
from swarm.gateway.config import GatewayConfig
from swarm.routing import describe_missing
from swarm.terms import ExpertId, Infohash, counted, merge_experts
from swarm.torrent import Magnet, magnet_of

log = logging.getLogger("swarm.gateway")

OPEN_AGAIN_S = 2.0
"""How long to leave a release alone that could not be opened: its seeder may only just be starting."""

STATUS_MAX_AGE_S = 1.0
"""How old an answer about the swarm may be: each costs a question to every node that is known."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this release's tokenizer can express. A base model completes text, whatever else it lacks."""

    chat: bool
    fim: bool
    tools: bool


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One release whose client is open. name: what requests call it, unique within the gateway.

    created_s: Unix time at which this gateway opened it.
    """

    name: str
    client: AsyncClient
    magnet: str
    created_s: int
    capabilities: Capabilities

    @property
    def infohash(self) -> Infohash:
        return self.client.release.infohash

    @property
    def max_positions(self) -> int:
        return self.client.release.args.max_positions


@dataclass(frozen=True, slots=True)
class ModelReadiness:
    """Whether one release can answer now. problem: what is missing, for people; "" when ready.

    name: the release's, or while it is not open yet the link's (else its infohash). status: None while it is not open.
    """

    name: str
    is_ready: bool
    problem: str
    status: SwarmStatus | None = None


class UnknownModel(BadArgument):
    """No release of this gateway goes by that name."""


class ModelNotOpen(SwarmError):
    """The release is being opened still."""


@dataclass(slots=True)
class _Slot:
    """One magnet link, and what has become of it."""

    magnet: Magnet
    link: str
    model: ServedModel | None = None
    problem: str = "it is being opened"
    status: SwarmStatus | None = None
    status_s: float = float("-inf")
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        return self.model.name if self.model is not None else self.magnet.name or self.magnet.infohash


class ModelRegistry:
    """Async context manager: entering returns at once, and opens every release's client in the background.

    A release that cannot be opened (no seeder, no metadata) is tried again for as long as the gateway lives.
    Raises: MagnetError, BadArgument when built, for links that are none or name one release twice.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._slots = [_Slot(magnet_of(link), link) for link in config.magnets]
        infohashes = [slot.magnet.infohash for slot in self._slots]
        for infohash in infohashes:
            if infohashes.count(infohash) > 1:
                raise BadArgument(f"two of the magnet links name the same release {infohash}; give each once")
        self._opening: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> ModelRegistry:
        self._opening = [asyncio.create_task(self._keep_opening(slot)) for slot in self._slots]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        await asyncio.gather(*(slot.model.client.close() for slot in self._slots if slot.model is not None))

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """Those that are open, in the order of their links."""
        return tuple(slot.model for slot in self._slots if slot.model is not None)

    @property
    def network(self) -> str:
        """How far its clients reach: loopback, lan or wan."""
        return network_name(self._config.network)

    @property
    def default(self) -> ServedModel | None:
        """The first of the open ones."""
        return next(iter(self.models), None)

    def get(self, name: str) -> ServedModel:
        """The model by its name or its infohash. Raises: UnknownModel, ModelNotOpen."""
        for slot in self._slots:
            if name in (slot.name, slot.magnet.infohash):
                if slot.model is None:
                    raise ModelNotOpen(f"the model {name!r} is not ready: {slot.problem}; try again shortly")
                return slot.model
        waiting = [slot.name for slot in self._slots if slot.model is None]
        if waiting:  # a release's true name is known once it is open
            raise ModelNotOpen(f"the model {name!r} is not known yet, and {', '.join(waiting)} is still being opened")
        known = ", ".join(model.name for model in self.models)
        raise UnknownModel(f"the model {name!r} does not exist here; this gateway serves {known}")

    async def wait_open(self) -> None:
        """Until every release is open."""
        await asyncio.gather(*self._opening)

    async def readiness(self) -> tuple[ModelReadiness, ...]:
        """Every release's, by what the nodes said within the last STATUS_MAX_AGE_S."""
        return tuple(await asyncio.gather(*map(self._readiness, self._slots)))

    async def status(self, model: ServedModel) -> SwarmStatus:
        """The swarm of one model, at most STATUS_MAX_AGE_S old; asking often costs no more than asking once."""
        slot = next(slot for slot in self._slots if slot.model is model)
        return await self._status(slot, model)

    def last_status(self, model: ServedModel) -> SwarmStatus | None:
        """What was last known of its swarm, without asking anybody."""
        return next((slot.status for slot in self._slots if slot.model is model), None)

    async def _readiness(self, slot: _Slot) -> ModelReadiness:
        if slot.model is None:
            return ModelReadiness(slot.name, False, slot.problem)
        try:
            status = await self._status(slot, slot.model)
        except SwarmError as error:
            return ModelReadiness(slot.name, False, error.message)
        missing = status.missing_layers
        have = "has" if len(missing) == 1 else "have"
        problem = f"{len(missing)} of {counted(status.n_layers, 'layer')} {have} no host" if missing else ""
        if status.missing_experts:
            problem += f": {describe_missing(status.missing_experts)}"
        return ModelReadiness(slot.name, not missing, problem, status)

    async def _status(self, slot: _Slot, model: ServedModel) -> SwarmStatus:
        async with slot.asking:
            if slot.status is None or time.monotonic() - slot.status_s > STATUS_MAX_AGE_S:
                slot.status = await model.client.status()
                slot.status_s = time.monotonic()
            return slot.status

    async def _keep_opening(self, slot: _Slot) -> None:
        """Until it is open. Only cancellation ends it otherwise."""
        while slot.model is None:
            try:
                client = await self._opened(slot.link)
            except SwarmError as error:
                slot.problem = error.message
                log.warning("cannot open %s yet: %s", slot.name, error.message)
                await asyncio.sleep(OPEN_AGAIN_S)
                continue
            name = _distinct(client.release.name, client.release.infohash, [model.name for model in self.models])
            slot.model = ServedModel(name, client, slot.link, int(time.time()), capabilities_of(client))
            log.info("serving %s (%s)", name, slot.magnet.infohash)
            with contextlib.suppress(SwarmError):
                await self._status(slot, slot.model)  # so that the first request finds the nodes known

    async def _opened(self, link: str) -> AsyncClient:
        config = self._config
        client = connect_async(
            link,
            bootstrap=config.bootstrap,
            peers=config.peers,
            network=config.network,
            data_dir=config.data_dir,
            timeout_s=config.timeout_s,
            publishers=config.publishers,
        )
        return await client.__aenter__()


def capabilities_of(client: AsyncClient) -> Capabilities:
    """What the release's tokenizer has templates and special tokens for."""
    tokenizer = client.release.tokenizer
    if tokenizer is None:
        return Capabilities(False, False, False)
    return Capabilities(tokenizer.has_chat_template, tokenizer.has_fim_template, tokenizer.has_tool_template)


def _distinct(name: str, infohash: Infohash, taken: Sequence[str]) -> str:
    """Two releases may bear one name: the later one gets the beginning of its infohash with it."""
    return name if name not in taken else f"{name}-{infohash[:8]}"


def expert_words(experts: Sequence[ExpertId]) -> list[str]:
    """As `--experts` takes them."""
    return [str(one) for one in merge_experts(experts)]
