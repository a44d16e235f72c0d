"""The chat's Markdown in a browser: what it makes of text, and that no text can make it do anything else."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from swarm.gateway import GatewayConfig
from swarm.gateway.server import Gateway
from swarm.terms import Address

if TYPE_CHECKING:
    from playwright.async_api import Page

NOBODY_SEEDS = f"magnet:?xt=urn:btih:{'ab' * 20}"

ALLOWED = {
    "A", "BLOCKQUOTE", "BR", "BUTTON", "CODE", "DEL", "DIV", "EM", "FIGCAPTION", "FIGURE", "H2", "H3", "H4", "H5", "H6",
    "HR", "INPUT", "LI", "OL", "P", "PRE", "SPAN", "STRONG", "TABLE", "TBODY", "TD", "TH", "THEAD", "TR", "UL",
    "path", "svg",
}  # fmt: skip
"""Every element that an answer may consist of."""

RENDER = """async (texts) => {
  const { markdown } = await import("/static/chat/markdown.js");
  return texts.map((text) => {
    const box = document.createElement("div");
    box.append(...markdown(text));
    for (const button of box.querySelectorAll("button")) button.remove();
    return box.innerHTML;
  });
}"""

INSPECT = """async (texts) => {
  const { markdown, MarkdownView } = await import("/static/chat/markdown.js");
  const found = { tags: new Set(), links: new Set(), attributes: new Set(), torn: [] };
  for (const text of texts) {
    const whole = document.createElement("div");
    whole.append(...markdown(text));
    for (const element of whole.querySelectorAll("*")) {
      found.tags.add(element.tagName);
      for (const { name } of element.attributes) found.attributes.add(name);
      if (element.href) found.links.add(element.protocol);
    }
    const grown = document.createElement("div");
    const view = new MarkdownView(grown);
    for (let end = 1; end < text.length + 3; end += 3) view.show(text.slice(0, end));
    view.show(text);
    if (grown.innerHTML !== whole.innerHTML) found.torn.push(text);
  }
  return Object.fromEntries(Object.entries(found).map(([name, seen]) => [name, [...seen]]));
}"""


@pytest.fixture
async def page(new_page: Callable[..., Any], tmp_path: Path) -> AsyncIterator[Page]:
    """The chat of a gateway whose model nobody has."""
    config = GatewayConfig(
        (NOBODY_SEEDS,), listen=Address("127.0.0.1", 0), network="loopback", data_dir=tmp_path, drain_timeout_s=0.0
    )
    async with Gateway(config) as gateway:
        opened = await new_page()
        await opened.goto(gateway.url)
        yield opened


async def test_markdown_becomes_the_elements_that_it_means(page: Page) -> None:
    cases = {
        "a *b* **c** ***d*** ~~e~~ _f_ __g__": "<p>a <em>b</em> <strong>c</strong> <em><strong>d</strong></em> "
        "<del>e</del> <em>f</em> <strong>g</strong></p>",
        "snake_case_name 2 * 3 * 4 **": "<p>snake_case_name 2 * 3 * 4 **</p>",
        r"\*no\* \`code\`": "<p>*no* `code`</p>",
        "`a*b*` ``c`d``": "<p><code>a*b*</code> <code>c`d</code></p>",
        "<b>x</b> &amp; &lt;": "<p>&lt;b&gt;x&lt;/b&gt; &amp;amp; &amp;lt;</p>",
        "one  \ntwo\nthree": "<p>one<br>two\nthree</p>",
        "def f():\n    return 1": "<p>def f():\n    return 1</p>",
        "# A #\r\n### B": "<h2>A</h2><h4>B</h4>",
        "#tag": "<p>#tag</p>",
        "- a\n- b\n  - c": "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>",
        "3. a\n4. b": '<ol start="3"><li>a</li><li>b</li></ol>',
        "- a\n\n- b": "<ul><li><p>a</p></li><li><p>b</p></li></ul>",
        "text\n- item": "<p>text</p><ul><li>item</li></ul>",
        "> a\n> > b": "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>",
        "---": "<hr>",
    }
    rendered = await page.evaluate(RENDER, list(cases))
    assert dict(zip(cases, rendered, strict=True)) == cases


async def test_code_keeps_every_character_also_before_its_fence_is_closed(page: Page) -> None:
    code = "if a < b && c:\n\n\tprint('*x*')  # <b>"
    closed, unclosed, nested = await page.evaluate(
        RENDER, [f"```py\n{code}\n```", f"~~~~\n{code}\n~~~", f"- a\n  ```\n  {code.splitlines()[0]}\n  ```"]
    )
    written = "if a &lt; b &amp;&amp; c:\n\n\tprint('*x*')  # &lt;b&gt;"
    assert f"<code>{written}</code>" in closed
    assert f"<code>{written}\n~~~</code>" in unclosed
    assert "<code>if a &lt; b &amp;&amp; c:</code>" in nested


async def test_only_web_and_mail_addresses_become_links(page: Page) -> None:
    texts = [
        "[a](https://x.example/p?q=1&r=(2))", "<mailto:a@x.example>", "see https://x.example/a, ok",
        "[a](javascript:alert(1))", "[a]( JaVaScRiPt:alert(1))", "[a](data:text/html,x)",
        "[a](//x.example)", "[a](/local)",
        "<javascript:alert(1)>", "[a](vbscript:x)", "[a](https://)", "[a](blob:x)", "[a](file:///etc/passwd)",
    ]  # fmt: skip
    rendered = await page.evaluate(RENDER, texts)
    assert [html.count("<a ") for html in rendered] == [1, 1, 1] + [0] * 10
    assert 'href="https://x.example/p?q=1&amp;r=(2)"' in rendered[0]
    assert 'href="https://x.example/a"' in rendered[2] and "</a>, ok" in rendered[2]


async def test_no_soup_of_marks_makes_another_element_or_depends_on_how_it_came(page: Page) -> None:
    draw = random.Random(9)
    marks = [
        *"*_~`[]()!<>|#-+:\\\n\n  ", "**", "```", "~~~", "\n- ", "\n1. ", "\n> ", "\n|a|b|\n|-|:-:|\n", "](",
        "https://x.example/", "javascript:", "<script>", "<img src=x onerror=x>", " onclick='x'", "word", "é",
        "\u2028", "\t", "&lt;", '"', "    ",
    ]  # fmt: skip
    texts = ["".join(draw.choices(marks, k=draw.randint(1, 40))) for _ in range(2000)]
    found = await page.evaluate(INSPECT, texts)
    assert set(found["tags"]) <= ALLOWED
    assert set(found["links"]) <= {"http:", "https:", "mailto:"}
    assert not [
        name for name in found["attributes"] if name.startswith("on") or name in ("style", "src", "srcdoc", "id")
    ]
    assert found["torn"] == []


async def test_hostile_lengths_are_read_in_linear_time(page: Page) -> None:
    """What takes the square of its length would outlast the test's time limit many times over."""
    n = 100_000
    texts = [
        "*" * n, "*a " * n, "[" * n, "[a](" * n, "`" * n, "> " * 20_000, "- " * 20_000, "# " + " " * n + "x",
        "```" + " " * n + "`",
        "~" * n + "`", "|a\n" + " " * n + "-x", "|" * n + "\n" + "|-" * n, "a|b\n-|-\n" + "|\n" * 20_000, "#" * n + "x",
        "# " + "#" * n + "x", "<" * n, "\\" * n, "http://" * n, "_a_" * n, "![" * n, "***a**" * n, "- a\n\n" * 20_000,
    ]  # fmt: skip
    lengths = await page.evaluate(
        """async (texts) => {
          const { markdown } = await import("/static/chat/markdown.js");
          return texts.map((text) => markdown(text).reduce((sum, node) => sum + node.textContent.length, 0));
        }""",
        texts,
    )
    assert len(lengths) == len(texts)
