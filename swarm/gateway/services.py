"""What every endpoint of one gateway shares, made once from its configuration and closed with it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from swarm.gateway.config import GatewayConfig
from swarm.gateway.models import ModelRegistry, ServedModel
from swarm.gateway.operations.keys import KeyStore
from swarm.gateway.operations.ledger import Ledger, UsageEntry
from swarm.gateway.operations.limits import Limits
from swarm.gateway.operations.metrics import Metrics
from swarm.gateway.reading import ReadingRoom
from swarm.gateway.route_book import RouteBook
from swarm.gateway.token_texts import TokenTexts


@dataclass(slots=True)
class Services:
    """ledger: None where no usage is kept."""

    config: GatewayConfig
    registry: ModelRegistry
    keys: KeyStore
    limits: Limits
    metrics: Metrics
    book: RouteBook
    reading: ReadingRoom
    ledger: Ledger | None = None
    _texts: dict[str, TokenTexts] = field(default_factory=dict)

    @classmethod
    def make(cls, config: GatewayConfig) -> Services:
        """Raises: BadArgument, MagnetError, for files and links that cannot be used."""
        registry = ModelRegistry(config)
        metrics = Metrics()
        ledger = None if config.ledger_file is None else Ledger(config.ledger_file)
        if ledger is not None:
            metrics.watch_ledger(lambda: ledger.n_lost)
        keys = KeyStore(config.keys_file, config.api_keys)
        reading = ReadingRoom(config.max_reading_bytes)
        return cls(config, registry, keys, Limits(config.limits), metrics, RouteBook(), reading, ledger)

    async def close(self) -> None:
        """Have the ledger on disk. The registry closes by itself: it is a context of its own."""
        self.keys.close()
        self.reading.close()
        if self.ledger is not None:
            await asyncio.to_thread(self.ledger.close)

    def record(self, entry: UsageEntry) -> None:
        if self.ledger is not None:
            self.ledger.record(entry)

    def token_texts(self, model: ServedModel) -> TokenTexts:
        """The texts of a model's single tokens; the first to ask has them read."""
        if model.infohash not in self._texts:
            self._texts[model.infohash] = TokenTexts(model.client.release.tokenizer)
        return self._texts[model.infohash]
