"""The dashboard asks only for metrics and labels that a gateway has, and shows everything that an operator needs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swarm.client import SwarmStatus
from swarm.gateway.operations.metrics import METRIC_NAMES, Metrics
from swarm.terms import Infohash

DASHBOARD = Path(__file__).parents[2] / "packaging" / "grafana" / "dashboard.json"

METRIC = re.compile(r"swarm:[a-z0-9_]+")
SELECTOR = re.compile(r"(swarm:[a-z0-9_]+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'\s*([a-z_]+)\s*(?:=~|!~|!=|=)\s*"[^"]*"\s*')
AGGREGATED = re.compile(r"\bby \(([^)]*)\)")
UNWATCHED = {
    "swarm:build_info",
    "swarm:http_request_duration_seconds",
    "swarm:request_generation_tokens",
    "swarm:request_prompt_tokens",
    "swarm:request_time_per_output_token_seconds",
}
"""What the dashboard does without, on purpose: constants, sizes of requests, and means of what it shows in full."""


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def expressions() -> Iterator[tuple[str, str]]:
    """(panel title, PromQL) of every panel, and the variables' queries."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield f"${variable['name']}", variable["query"]["query"]


def exposed() -> dict[str, set[str]]:
    """Every sample that a gateway in use exposes: name -> its labels."""
    metrics = Metrics()
    metrics.saw_swarm("m", SwarmStatus("m", Infohash("a" * 40), 2, (), (1, 0)))
    metrics.rejected("draining")
    metrics.observe_http("GET", "/health", 200, 0.1)
    with metrics.begin("m") as request:
        request.admitted()
        for _ in range(3):
            request.token()
        request.finish("stop", n_prompt_tokens=3)
    return {sample.name: set(sample.labels) for family in metrics.registry.collect() for sample in family.samples}


def test_every_metric_and_label_is_one_of_the_gateways() -> None:
    known = exposed()
    asked = 0
    for title, expression in expressions():
        for name, matchers in SELECTOR.findall(expression):
            assert name in known, f"{title} asks for {name}, which no gateway has"
            labels = [MATCHER.fullmatch(part) for part in matchers.split(",") if part]
            assert all(labels), f"{title}: {matchers}"
            assert {label[1] for label in labels if label} <= known[name], f"{title}: {name}{{{matchers}}}"
            asked += 1
        names = METRIC.findall(expression)
        for labels_by in AGGREGATED.findall(expression):
            assert {label.strip() for label in labels_by.split(",")} <= known[names[0]], f"{title}: by ({labels_by})"
    assert asked > 20


def test_what_a_gateway_tells_is_shown() -> None:
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for _, text in expressions() for name in METRIC.findall(text)}
    assert set(METRIC_NAMES) - shown == UNWATCHED


def test_counters_are_asked_for_their_rate_and_histograms_for_their_quantiles() -> None:
    for title, expression in expressions():
        for name in METRIC.findall(expression):
            is_cumulative = name.endswith(("_total", "_bucket", "_sum", "_count"))
            assert is_cumulative == (f"rate({name}" in expression), f"{title}: {expression}"
            assert name.endswith("_bucket") == ("histogram_quantile(" in expression), f"{title}: {expression}"
        assert expression.count("(") == expression.count(")"), title
        assert expression.count("[") == expression.count("]") == expression.count("[$__rate_interval]"), title


def test_panels_neither_overlap_nor_leave_the_grid_and_have_ids_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] >= 0 and at["x"] + at["w"] <= 24
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert taken.setdefault(cell, panel["title"]) == panel["title"], f"{panel['title']} lies over {taken[cell]}"


def test_it_can_be_imported_anywhere() -> None:
    """No data source, no id and no host of the machine on which it was drawn."""
    loaded = dashboard()
    assert "id" not in loaded
    assert loaded["uid"] and loaded["title"]
    sources = {json.dumps(s) for s in re.findall(r'"uid": "([^"]*)"', DASHBOARD.read_text())}
    assert sources == {json.dumps("${datasource}"), json.dumps(loaded["uid"])}
    assert "://" not in DASHBOARD.read_text()
