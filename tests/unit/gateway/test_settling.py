"""A gateway whose releases are open no longer looks through what stays for good."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from swarm.gateway.server import settle


@pytest.fixture
def frozen_before() -> Iterator[int]:
    yield gc.get_freeze_count()
    gc.unfreeze()


async def test_what_is_there_is_exempt_from_collection_once_all_is_open(frozen_before: int) -> None:
    opened = asyncio.Event()
    registry: Any = SimpleNamespace(wait_open=opened.wait)
    settling = asyncio.create_task(settle(registry))
    await asyncio.sleep(0)
    assert gc.get_freeze_count() == frozen_before
    opened.set()
    await settling
    assert gc.get_freeze_count() > frozen_before
