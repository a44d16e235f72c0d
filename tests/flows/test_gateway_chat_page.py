"""What a person does with the chat page, in a browser over a real swarm: send, watch, stop, ask again, reload."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from playwright.async_api import expect

if TYPE_CHECKING:
    from playwright.async_api import Page, Route

WAIT_MS = 60_000
ANSWER = ".turn.assistant"
WRITTEN = ".turn.assistant:not(.writing)"

Serve = Callable[..., Any]
NewPage = Callable[..., Any]


async def open_chat(new_page: NewPage, url: str, **options: Any) -> Page:
    page: Page = await new_page(**options)
    await page.goto(url)
    await page.wait_for_selector("#pill .dot.good")
    return page


async def send(page: Page, text: str) -> None:
    await page.fill("#message", text)
    await page.press("#message", "Enter")


async def limit_tokens(page: Page, n_tokens: int, seed: int | None = None) -> None:
    await page.click("#configure")
    await page.fill("#set-max-tokens", str(n_tokens))
    await page.fill("#set-seed", str(seed) if seed is not None else "")
    await page.click("#settings-close")


def answering(*deltas: str) -> Callable[[Route], Any]:
    """A route handler that answers a completion with these words, for what no random weights would say."""
    chunks = [
        {"id": "chatcmpl-x", "choices": [{"index": 0, "delta": {"content": d}, "finish_reason": None}]} for d in deltas
    ]
    chunks.append({"id": "chatcmpl-x", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"

    async def fulfil(route: Route) -> None:
        await route.fulfill(status=200, content_type="text/event-stream", body=body)

    return fulfil


async def open_scripted(new_page: NewPage, url: str, *deltas: str) -> Page:
    page: Page = await new_page()
    await page.route("**/v1/chat/completions", answering(*deltas))
    await page.goto(url)
    await page.wait_for_selector("#pill .dot.good")
    return page


async def test_an_answer_streams_in_with_its_rate_and_route(serve_pages: Serve, new_page: NewPage) -> None:
    served = await serve_pages("0:5", "5:12")
    page = await open_chat(new_page, served.url)
    await expect(page.locator("#pill")).to_have_text("2 nodes")
    await limit_tokens(page, 200, seed=1)
    await send(page, "Say something.")

    await page.wait_for_selector(f"{ANSWER}.writing .rate:not(:empty)")
    early = await page.inner_text(f"{ANSWER} .body")
    await page.wait_for_selector(f"{WRITTEN} .route")
    text = await page.inner_text(f"{ANSWER} .body")
    assert early and len(text) > len(early)

    summary = page.locator(f"{ANSWER} .route summary")
    await expect(summary).to_contain_text("tokens/s · 200 tokens · 2 nodes")
    await expect(page.locator(".ending")).to_contain_text("Cut off at the most tokens")
    await summary.click()
    ids = [(await node.event("started"))["node_id"] for node in served.nodes]
    hops = page.locator(f"{ANSWER} .hops li")
    assert await hops.evaluate_all("items => items.map((item) => item.title)") == [
        f"node {ids[0]}, layers 0:5",
        f"node {ids[1]}, layers 5:12",
    ]


async def test_stopping_keeps_what_was_written_and_frees_every_stage(serve_pages: Serve, new_page: NewPage) -> None:
    served = await serve_pages("0:12")
    page = await open_chat(new_page, served.url)
    for stop in ("button", "key"):
        await send(page, f"Go on and on ({stop}).")
        await page.wait_for_selector(f"{ANSWER}.writing .rate:not(:empty)")
        assert (await state(page))["routes"] != []
        if stop == "button":
            await page.click("#send[aria-label=Stop]")
        else:
            await page.press("#message", "Escape")
        last = page.locator(f"{ANSWER}.last")
        await expect(last.locator(".ending")).to_have_text("Stopped.")
        assert await last.locator(".body").inner_text()
        await page.wait_for_function(
            "async () => { const seen = await (await fetch('/swarm/state.json')).json();"
            " const [model] = seen.models; return model.routes.length === 0 && model.nodes[0].n_routes === 0; }"
        )


async def test_regenerating_and_editing_add_versions_and_lose_none(serve_pages: Serve, new_page: NewPage) -> None:
    served = await serve_pages("0:12")
    page = await open_chat(new_page, served.url)
    await limit_tokens(page, 6)
    await send(page, "First question")
    await page.wait_for_selector(WRITTEN)
    first = await page.inner_text(f"{ANSWER} .body")

    await page.click(f"{ANSWER} [title=Regenerate]")
    await page.wait_for_selector(f"{WRITTEN} .versions >> text='2 / 2'")
    await page.click(f"{ANSWER} [title='The version before']")
    await expect(page.locator(f"{ANSWER} .body")).to_have_text(first, use_inner_text=True)

    await page.hover(".turn.user")
    await page.click("[title='Edit and send again']")
    await page.fill(".turn.user textarea", "Second question")
    await page.press(".turn.user textarea", "Enter")
    await expect(page.locator(".turn.user .body")).to_have_text("Second question")
    await page.wait_for_selector(f"{WRITTEN}")
    await expect(page.locator(".turn.user .versions")).to_contain_text("2 / 2")
    await page.hover(".turn.user")
    await page.click(".turn.user [title='The version before']")
    await expect(page.locator(".turn.user .body")).to_have_text("First question")
    await expect(page.locator(f"{ANSWER} .body")).to_have_text(first, use_inner_text=True)


async def test_history_survives_a_reload_a_second_conversation_and_an_undone_deletion(
    serve_pages: Serve, new_page: NewPage
) -> None:
    served = await serve_pages("0:12")
    page = await open_chat(new_page, served.url)
    await limit_tokens(page, 5)
    await send(page, "Remember the whale")
    await page.wait_for_selector(f"{WRITTEN} .route")
    whale = await page.inner_text(f"{ANSWER} .body")
    await page.click("#new")
    await send(page, "And the otter")
    await page.wait_for_selector(f"{WRITTEN} .route")

    await page.reload()
    await expect(page.locator(".turn.user .body")).to_have_text("And the otter")
    titles = page.locator("#conversations .open")
    await expect(titles).to_have_text(["And the otter", "Remember the whale"])
    await titles.nth(1).click()
    await expect(page.locator(".turn.user .body")).to_have_text("Remember the whale")
    await expect(page.locator(f"{ANSWER} .body")).to_have_text(whale, use_inner_text=True)
    await page.click("#configure")
    await expect(page.locator("#set-max-tokens")).to_have_value("5")
    await page.click("#settings-close")

    await titles.nth(1).hover()
    await page.click("[aria-label='Delete “Remember the whale”']")
    await expect(titles).to_have_text(["And the otter"])
    await page.click("#toast button")
    await expect(titles).to_have_text(["And the otter", "Remember the whale"])
    await expect(page.locator(".turn.user .body")).to_have_text("Remember the whale")


async def test_a_reload_in_the_middle_of_an_answer_keeps_what_had_come(serve_pages: Serve, new_page: NewPage) -> None:
    served = await serve_pages("0:12")
    page = await open_chat(new_page, served.url)
    await send(page, "A long one")
    await page.wait_for_function(f"() => document.querySelector('{ANSWER} .body').innerText.length > 200")
    await page.reload()
    await expect(page.locator(f"{ANSWER} .ending")).to_contain_text("Cut off: the page was closed")
    assert await page.inner_text(f"{ANSWER} .body")


async def test_html_in_an_answer_stays_text(serve_pages: Serve, new_page: NewPage) -> None:
    attack = (
        "<script>window.owned = 1</script><img src=x onerror='window.owned = 2'>\n\n"
        "[click](javascript:window.owned=3) [data](data:text/html,<script>window.owned=4</script>)\n\n"
        "![pixel](http://127.0.0.1:9/leak.png) <svg onload=window.owned=5>\n\n"
        "```html\n<iframe srcdoc='<script>parent.owned = 6</script>'></iframe>\n```\n\n"
        "| <b>a</b> |\n|---|\n| <a href='javascript:window.owned=7'>b</a> |\n\n"
        '<https://example.org/?a="onmouseover="window.owned=8> **<u>bold</u>**'
    )
    served = await serve_pages("0:12")
    page = await open_scripted(new_page, served.url, *(attack[i : i + 7] for i in range(0, len(attack), 7)))
    await send(page, "Attack me <b>now</b>")
    await page.wait_for_selector(WRITTEN)
    body = page.locator(f"{ANSWER} .body")
    shown = await body.inner_text()
    for written in ("<script>window.owned = 1</script>", "<svg onload=window.owned=5>", "<iframe srcdoc=", "<b>a</b>"):
        assert written in shown
    assert await body.locator("script, img, iframe, svg:not(.icon), b, u, object, embed, style").count() == 0
    links = await body.locator("a").evaluate_all("found => found.map((a) => [a.protocol, a.rel, a.target])")
    safe = ["noopener noreferrer nofollow", "_blank"]
    assert links == [["http:", *safe], ["https:", *safe]]  # the image, which loads nothing, and the address in <>
    for link in await body.locator("a").all():
        await link.hover()
    assert await page.evaluate("window.owned") is None
    assert await page.inner_text(".turn.user .body") == "Attack me <b>now</b>"
    assert await page.inner_text("#conversations .open") == "Attack me <b>now</b>"


async def test_markdown_is_rendered_and_code_can_be_copied(serve_pages: Serve, new_page: NewPage) -> None:
    text = (
        "# Title\n\nSome *em*, **strong**, `code` and [a link](https://example.org/a_(b)).\n\n"
        "1. one\n2. two\n   - deep\n\n> quoted\n\n```py\nif a < b:\n    pass\n```\n\n| l | r |\n|:--|--:|\n| 1 | 2 |\n"
    )
    served = await serve_pages("0:12")
    page = await open_scripted(new_page, served.url, text[:40], text[40:])
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await send(page, "Markdown, please")
    await page.wait_for_selector(WRITTEN)
    body = page.locator(f"{ANSWER} .body")
    for selector, expected in (
        ("h2", "Title"), ("em", "em"), ("strong", "strong"), ("p code", "code"), ("ol > li:nth-child(2) ul li", "deep"),
        ("blockquote p", "quoted"), ("td.right", "2"), ("figcaption span", "py"),
    ):  # fmt: skip
        await expect(body.locator(selector)).to_have_text(expected)
    assert await body.locator("a").get_attribute("href") == "https://example.org/a_(b)"
    await body.locator("figure button").click()
    assert await page.evaluate("navigator.clipboard.readText()") == "if a < b:\n    pass"


async def test_a_starter_begins_a_conversation_and_code_without_a_fence_keeps_its_lines(
    serve_pages: Serve, new_page: NewPage
) -> None:
    served = await serve_pages("0:12")
    page = await open_scripted(new_page, served.url, "def add(a, b):\n", "    return a + b")
    starter = page.locator(".starters button").last
    text = await starter.inner_text()
    await starter.click()
    await page.wait_for_selector(WRITTEN)
    assert await page.inner_text(".turn.user .body") == text
    assert await page.inner_text(f"{ANSWER} .body") == "def add(a, b):\n    return a + b"


async def test_what_is_sent_is_the_conversation_and_its_settings(serve_pages: Serve, new_page: NewPage) -> None:
    served = await serve_pages("0:12")
    page = await open_scripted(new_page, served.url, "Fine.")
    await page.click("#configure")
    for field, value in (
        ("system", "Be brief."),
        ("temperature", "0.2"),
        ("top-p", "0.9"),
        ("seed", "7"),
        ("stop", "END"),
    ):
        await page.fill(f"#set-{field}", value)
    await page.keyboard.press("Escape")
    await send(page, "One")
    await page.wait_for_selector(WRITTEN)
    async with page.expect_request("**/v1/chat/completions") as sent:
        await send(page, "Two")
    asked = (await sent.value).post_data_json
    model = await page.input_value("#model")
    assert asked == {
        "model": model,
        "messages": roles(("system", "Be brief."), ("user", "One"), ("assistant", "Fine."), ("user", "Two")),
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.2,
        "top_p": 0.9,
        "max_tokens": 1024,
        "seed": 7,
        "stop": ["END"],
    }


async def test_a_gateway_with_keys_is_asked_with_one(serve_pages: Serve, new_page: NewPage) -> None:
    served = await serve_pages("0:12", api_keys=("sk-the-right-key",))
    page: Page = await new_page()
    await page.goto(served.url)
    await expect(page.locator("#key-wanted")).to_be_visible()
    await page.fill("#set-key", "sk-the-right-key")
    await page.keyboard.press("Escape")
    await page.wait_for_selector("#pill .dot.good")
    await limit_tokens(page, 4)
    await send(page, "Hello")
    await page.wait_for_selector(f"{WRITTEN} .route")

    await page.click("#configure")
    await page.fill("#set-key", "sk-a-wrong-key")
    await page.click("#settings-close")
    await expect(page.locator("#key-wanted")).to_be_visible()
    await page.keyboard.press("Escape")
    await send(page, "Hello again")
    await expect(page.locator(f"{ANSWER}.last .failure")).to_contain_text("key")
    await expect(page.locator("#key-wanted")).to_be_visible()


async def test_a_lost_swarm_is_told_and_the_answer_can_be_tried_again(serve_pages: Serve, new_page: NewPage) -> None:
    served = await serve_pages("0:6", "6:12", timeout_s=2.0)
    page = await open_chat(new_page, served.url)
    await limit_tokens(page, 4)
    await served.nodes[1].kill()
    await expect(page.locator("#pill")).to_have_text("layers 6:12 missing", timeout=WAIT_MS)
    await send(page, "Anybody there?")
    await expect(page.locator(f"{ANSWER} .failure")).to_contain_text("6:12", timeout=WAIT_MS)
    await served.swarm.start("6:12")
    await expect(page.locator("#pill")).to_have_text("2 nodes", timeout=WAIT_MS)
    await page.click(f"{ANSWER} [title='Try again']")
    await page.wait_for_selector(f"{WRITTEN} .route")


async def test_the_keyboard_alone_is_enough_on_a_phone_sized_page(serve_pages: Serve, new_page: NewPage) -> None:
    served = await serve_pages("0:12")
    page = await open_chat(new_page, served.url, viewport={"width": 390, "height": 800})
    assert await page.evaluate("document.documentElement.scrollWidth") <= 390
    await page.evaluate("document.activeElement.blur()")
    await page.keyboard.press("/")
    await page.keyboard.type("line one")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("line two")
    await page.unroute_all()
    await page.route("**/v1/chat/completions", answering("Yes."))
    await page.keyboard.press("Enter")
    await page.wait_for_selector(WRITTEN)
    assert await page.inner_text(".turn.user .body") == "line one\nline two"
    await page.keyboard.press("ArrowUp")
    await expect(page.locator(".turn.user textarea")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.locator(".turn.user textarea")).to_have_count(0)
    await page.focus("#menu")
    await page.keyboard.press("Enter")
    await expect(page.locator("#sidebar")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.locator("#sidebar")).to_be_hidden()


async def state(page: Page) -> dict[str, Any]:
    """What the swarm page would show of the only model."""
    seen = await page.evaluate("async () => (await fetch('/swarm/state.json')).json()")
    model: dict[str, Any] = seen["models"][0]
    return model


def roles(*messages: Sequence[str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in messages]
