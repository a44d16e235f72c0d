"""What the swarm page shows of a real swarm as it changes: hosts, holes, nodes that go and come, running answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from playwright.async_api import expect

from swarm.cli.release_plan import parse_experts
from swarm.terms import Span

if TYPE_CHECKING:
    from playwright.async_api import Page, Route

Serve = Callable[..., Any]
NewPage = Callable[..., Any]


async def open_swarm(new_page: NewPage, url: str, **options: Any) -> Page:
    page: Page = await new_page(**options)
    await page.goto(f"{url}/swarm")
    await page.wait_for_selector(".node")
    return page


async def hosts(page: Page) -> list[int]:
    """How many nodes each layer of the strip is coloured for."""
    cells: list[str] = await page.locator(".strip .layer").evaluate_all("cells => cells.map((c) => c.dataset.hosts)")
    return [int(cell) for cell in cells]


async def until_hosts(page: Page, expected: list[int]) -> None:
    await page.wait_for_function(
        "(wanted) => [...document.querySelectorAll('.strip .layer')].map((c) => c.dataset.hosts).join() === wanted",
        arg=",".join(map(str, expected)),
    )


async def node_id(node: Any) -> str:
    return str((await node.event("started"))["node_id"])


async def test_a_killed_node_leaves_a_hole_and_a_new_one_fills_it(serve_pages: Serve, new_page: NewPage) -> None:
    served = await serve_pages("0:5", "3:12")
    page = await open_swarm(new_page, served.url)
    await until_hosts(page, [1, 1, 1, 2, 2, 1, 1, 1, 1, 1, 1, 1])
    await expect(page.locator(".verdict")).to_have_text("Every layer is served")
    lost = await node_id(served.nodes[0])

    await served.nodes[0].kill()
    await until_hosts(page, [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    await expect(page.locator(".verdict")).to_have_text("Nobody serves layers 0:3")
    await expect(page.locator(".strip")).to_have_attribute("aria-label", "Layers without a host: 0, 1, 2")
    red = await page.locator(".layer[data-layer='0']").evaluate("cell => getComputedStyle(cell).backgroundImage")
    whole = await page.locator(".layer[data-layer='3']").evaluate("cell => getComputedStyle(cell).backgroundImage")
    assert "gradient" in red and whole == "none"
    await expect(page.locator(".node.is-gone")).to_contain_text(lost[:8])
    await expect(page.locator(".lend code")).to_contain_text("--network loopback --layers 0:3")

    await served.swarm.start("0:3")
    await until_hosts(page, [1] * 12)
    await expect(page.locator(".verdict")).to_have_text("Every layer is served")


async def test_each_node_shows_what_it_hosts_and_whether_it_can_be_reached(
    serve_pages: Serve, new_page: NewPage
) -> None:
    served = await serve_pages("0:8", "8:12")
    page = await open_swarm(new_page, served.url)
    first, second = [await node_id(node) for node in served.nodes]
    await expect(page.locator(".node th code")).to_have_text([first[:8], second[:8]])
    await expect(page.locator(".node .reach").first).to_contain_text("ms")
    await expect(page.locator(".node .load").first).to_contain_text("room for")
    lane, bar = [await page.locator(s).first.bounding_box() for s in (".node .lane", ".node .bar")]
    assert lane is not None and bar is not None
    assert abs(bar["width"] / lane["width"] - 8 / 12) < 0.01
    await expect(page.locator(".about")).to_contain_text("12 layers · 8 experts in each, 2 at work per token")


async def test_a_running_answer_shows_its_route(serve_pages: Serve, new_page: NewPage) -> None:
    served = await serve_pages("0:4", "4:12")
    page = await open_swarm(new_page, served.url)
    ids = [await node_id(node) for node in served.nodes]
    name = await page.inner_text(".model h2")
    asked = {
        "model": name,
        "messages": [{"role": "user", "content": "Go on."}],
        "stream": True,
        "max_tokens": 4000,
    }
    await page.evaluate(
        """(asked) => {
          window.leaving = new AbortController();
          const signal = window.leaving.signal;
          const body = JSON.stringify(asked);
          fetch("/v1/chat/completions",
            { method: "POST", headers: { "Content-Type": "application/json" }, body, signal })
            .then((answer) => answer.text()).catch(() => {});
        }""",
        asked,
    )
    await expect(page.locator(".running .hop code")).to_have_text([node[:8] for node in ids])
    await expect(page.locator(".node .load").first).to_contain_text("1 here")
    await expect(page.locator(".about")).to_contain_text("1 answer running")
    await page.evaluate("window.leaving.abort()")
    await expect(page.locator(".running")).to_have_count(0)


async def test_a_joining_node_shows_how_far_its_download_is(serve_pages: Serve, new_page: NewPage) -> None:
    """A download of 10 MB is over at once, so the state is the gateway's own with one node turned back."""
    served = await serve_pages("0:12")
    page = await new_page()

    async def turn_back(route: Route) -> None:
        answer = await route.fetch()
        state = await answer.json()
        for node in state["models"][0].get("nodes", []):
            node |= {"state": "joining", "needed_bytes": 2_000_000_000, "fetched_bytes": 860_000_000}
        await route.fulfill(response=answer, body=json.dumps(state))

    await page.route("**/swarm/state.json", turn_back)
    await page.goto(f"{served.url}/swarm")
    await expect(page.locator(".node .progress")).to_have_text("43 % · 860 MB of 2.0 GB")
    await expect(page.locator(".node .state")).to_have_text("joining")


async def test_the_page_fits_a_phone_and_survives_a_gateway_that_goes(serve_pages: Serve, new_page: NewPage) -> None:
    served = await serve_pages("0:12")
    page = await open_swarm(new_page, served.url, viewport={"width": 360, "height": 740})
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    await page.route("**/swarm/state.json", lambda route: route.abort())
    await expect(page.locator("#notice")).to_contain_text("cannot be reached")
    await expect(page.locator(".node")).to_have_count(1)
    await page.unroute("**/swarm/state.json")
    await expect(page.locator("#notice")).to_be_hidden()


async def test_experts_apart_show_with_the_one_that_is_missing(serve_pages: Serve, new_page: NewPage) -> None:
    served = await serve_pages("0:6")
    await served.swarm.start(trunks=(Span(6, 12),), experts=tuple(parse_experts("6-11:0-6")))
    page = await open_swarm(new_page, served.url)
    verdict = page.locator(".verdict")
    await expect(verdict).to_have_text("Nobody serves layers 6:12: no host for experts 6-11:7")
    await expect(page.locator(".node .lane").last).to_contain_text("trunk 6:12, experts 6-11:0-6")
    await expect(page.locator(".lend code")).to_contain_text("--experts 6-11:7")
    (model,) = (await page.evaluate("fetch('/ready').then((answer) => answer.json())"))["models"]
    assert model["missing_experts"] == ["6-11:7"]
    assert model["problem"].startswith("6 of 12 layers have no host: layer 6 expert 7 has no host")
    await served.swarm.start(experts=tuple(parse_experts("6-11:7")))
    await until_hosts(page, [1] * 12)
    await expect(verdict).to_have_text("Every layer is served")
    assert "1 host of each of the 8 experts" in str(await page.locator(".layer[data-layer='7']").get_attribute("title"))
