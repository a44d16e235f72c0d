"""A gateway over three in-process nodes, on any free port, and what tests ask it with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from swarm.gateway.config import GatewayConfig
from swarm.gateway.server import Gateway
from swarm.terms import Address

THREE_SPANS = ("0:4", "4:8", "8:12")


@asynccontextmanager
async def gateway_over(swarm: Any, **settings: Any) -> AsyncIterator[Gateway]:
    """A gateway for a published LocalSwarm."""
    config = GatewayConfig(
        magnets=(swarm.magnet,),
        listen=Address("127.0.0.1", 0),
        network="loopback",
        data_dir=swarm.work_dir / "gateway",
        **{"timeout_s": 20.0, "drain_timeout_s": 0.0, "default_max_tokens": 32, **settings},
    )
    async with Gateway(config) as gateway:
        yield gateway


async def until_ready(gateway: Gateway, timeout_s: float = 60.0) -> str:
    """The name of the first model, once every layer of every model has a host."""
    async with asyncio.timeout(timeout_s):
        while not all(one.is_ready for one in await gateway.services.registry.readiness()):
            await asyncio.sleep(0.05)
    return gateway.services.registry.models[0].name


@asynccontextmanager
async def ready_gateway(
    local_swarm: Callable[[Path], Any], folder: Path, spans: tuple[str, ...] = THREE_SPANS, **settings: Any
) -> AsyncIterator[tuple[Gateway, str, Any]]:
    """(the gateway, the model's name, the swarm) with every layer served."""
    swarm = local_swarm(folder)
    await swarm.publish()
    await asyncio.gather(*(swarm.start(span) for span in spans))
    async with gateway_over(swarm, **settings) as gateway:
        yield gateway, await until_ready(gateway), swarm
