"""A headless Chromium, and a gateway over a real swarm, for the flows that a person would go through."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]

WAIT_MS = 60_000
"""How long a page may take to show what it should: long, since tests share the machine."""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Headless Chromium; skips where it is not installed."""
    if shutil.which(CHROMIUM) is None:
        pytest.skip(f"{CHROMIUM} is not there; install it (Debian: apt install chromium)")
    from playwright.async_api import async_playwright, expect

    expect.set_options(timeout=WAIT_MS)
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        yield started
        await started.close()


@pytest.fixture
async def new_page(browser: Browser) -> AsyncIterator[Callable[..., Any]]:
    """await new_page(**context options) -> a page in a browser profile of its own.

    After the test: no page threw, met its policy, or asked anybody but the gateway.
    """
    faults: list[str] = []

    async def make(**options: Any) -> Page:
        context = await browser.new_context(**options)
        context.set_default_timeout(WAIT_MS)
        page = await context.new_page()
        page.on("pageerror", lambda error: faults.append(f"a page threw {error}"))
        page.on("request", lambda request: faults.extend(_outside(request.url)))
        page.on("console", lambda message: faults.extend(_refused(message.text)))
        return page

    yield make
    assert faults == []


def _outside(url: str) -> list[str]:
    is_own = url.startswith(("http://127.0.0.1:", "data:", "blob:"))
    return [] if is_own else [f"a page asked for {url}"]


def _refused(text: str) -> list[str]:
    return [f"the policy refused: {text}"] if "Content Security Policy" in text else []


@dataclass
class ServedPages:
    """A real gateway over a real local swarm, at url. swarm, nodes: to stop parts of it."""

    url: str
    swarm: Any
    nodes: list[Any]


@pytest.fixture(scope="session")
def small_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preset `demo` but narrow: 12 layers of 8 experts and a tokenizer in 10 MB, so that pages wait for little."""
    from node.weights import PRESETS, write_release

    narrow = replace(PRESETS["demo"].args, dim=32, n_heads=2, n_kv_heads=1, head_dim=16, hidden_dim=32)
    folder = tmp_path_factory.mktemp("release") / "small-mixtral"
    write_release(narrow, folder, dtype="fp32", tokenizer="v3")
    return folder


@pytest.fixture
async def serve_pages(
    small_release: Path, local_swarm: Callable[[Path], Any], tmp_path: Path
) -> AsyncIterator[Callable[..., Any]]:
    """await serve_pages("0:6", "6:12", **config) -> ServedPages of the small release, one node per span.

    config: of the gateway's GatewayConfig.
    """
    from swarm.gateway import GatewayConfig
    from swarm.gateway.server import Gateway
    from swarm.terms import Address

    async with AsyncExitStack() as stack:

        async def serve(*spans: str, **config: Any) -> ServedPages:
            swarm = local_swarm(small_release)
            magnet = await swarm.publish()
            nodes = list(await asyncio.gather(*(swarm.start(span) for span in spans)))
            told = {
                "listen": Address("127.0.0.1", 0),
                "network": "loopback",
                "data_dir": tmp_path / "gateway",
                "timeout_s": 20.0,
                "drain_timeout_s": 0.0,
                **config,
            }
            gateway = await stack.enter_async_context(Gateway(GatewayConfig((magnet,), **told)))
            return ServedPages(gateway.url, swarm, nodes)

        yield serve
