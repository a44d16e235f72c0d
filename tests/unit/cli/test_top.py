"""`swarm top` over given facts: what a look says, how it is drawn, and how the verb ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from swarm.cli import main as root
from swarm.cli import top as verb
from swarm.cli.top_gateway import GatewayLook
from swarm.cli.top_look import Look, best_route, look_at, look_fields, route_tokens_per_s
from swarm.cli.top_view import view
from swarm.client import SwarmStatus
from swarm.errors import NoNodesFound
from swarm.facts import NodeFact, NodeState
from swarm.routing import HOP_OVERHEAD_S, coverage
from swarm.terms import Address, ExpertRange, Infohash, NodeId, Profile, Span

MAGNET = "magnet:?xt=urn:btih:" + "a" * 40
NOW_S = 1_000_000.0
N_LAYERS = 4


def fact(letter: str, span: Span, **changes: Any) -> NodeFact:
    fields: dict[str, Any] = {
        "node_id": NodeId(letter * 52),
        "release": Infohash("a" * 40),
        "address": Address("127.0.0.1", 7000),
        "seq": 1,
        "issued_at_s": NOW_S - 3.0,
        "ttl_s": 60.0,
        "state": NodeState.SERVING,
        "spans": (span,),
        "profile": Profile("bf16"),
        "n_layers": N_LAYERS,
        "free_sessions": 8,
        "layer_time_s": 0.004,
        "needed_bytes": 2_000_000,
        "fetched_bytes": 1_000_000,
    }
    return NodeFact(**{**fields, **changes})


def seen(*nodes: NodeFact) -> SwarmStatus:
    return SwarmStatus("fake", Infohash("a" * 40), N_LAYERS, nodes, coverage(nodes, N_LAYERS, NOW_S))


def look(*nodes: NodeFact, gateway: GatewayLook | None = None) -> Look:
    status = seen(*nodes)
    route = best_route(status, NOW_S)
    return Look(status, NOW_S, route, route_tokens_per_s(route, nodes), gateway)


def drawn(shown: Look) -> str:
    console = Console(width=160, color_system=None)
    with console.capture() as captured:
        console.print(view(shown))
    return captured.get()


# -- a look --------------------------------------------------------------------------------------------------------


def test_the_speed_of_the_route_is_that_of_its_layers_and_hops() -> None:
    whole = look(fact("a", Span(0, 2)), fact("b", Span(2, 4), layer_time_s=0.002))
    assert whole.tokens_per_s == pytest.approx(1 / (2 * 0.004 + 2 * 0.002 + 2 * HOP_OVERHEAD_S))
    fields = look_fields(whole)
    assert [node["tokens_per_s"] for node in fields["nodes"]] == [pytest.approx(125.0), pytest.approx(250.0)]
    assert [node["said_s_ago"] for node in fields["nodes"]] == [3.0, 3.0]
    assert [hop["layers"] for hop in fields["route"]["hops"]] == ["0:2", "2:4"]
    json.dumps(fields)


def test_what_nobody_measured_is_no_figure() -> None:
    unmeasured = look(fact("a", Span(0, 2)), fact("b", Span(2, 4), layer_time_s=0.0))
    assert unmeasured.route is not None
    assert unmeasured.tokens_per_s == 0.0
    assert "speed not measured yet" in drawn(unmeasured)


def test_a_hole_leaves_no_route() -> None:
    broken = look(fact("a", Span(0, 2)), fact("b", Span(2, 4), state=NodeState.JOINING))
    assert (broken.route, broken.tokens_per_s, broken.free_sessions) == (None, 0.0, 0)
    text = drawn(broken)
    assert "layers  11..  4  nobody serves 2:4" in text
    assert "none: no session can begin" in text


def test_room_is_what_the_scarcest_layer_has() -> None:
    one, two = fact("a", Span(0, 4), free_sessions=5), fact("b", Span(2, 4), free_sessions=3)
    assert look(one).free_sessions == 5
    assert look(one, two).free_sessions == 5
    assert look(fact("a", Span(0, 2), free_sessions=9), two).free_sessions == 3
    assert look(one, fact("c", Span(0, 4), state=NodeState.DRAINING)).free_sessions == 5


# -- how it is drawn -----------------------------------------------------------------------------------------------


def test_a_row_per_node_in_the_order_of_the_layers() -> None:
    joining = fact("b", Span(2, 4), state=NodeState.JOINING)
    lines = drawn(look(joining, fact("a", Span(0, 2)), fact("c", Span(0, 4), free_sessions=0))).splitlines()
    assert lines[0].split()[:6] == ["fake", "a" * 12, "3", "nodes,", "2", "serving"]
    head = next(i for i, line in enumerate(lines) if line.startswith("node "))
    rows = [line.split() for line in lines[head + 1 :]]
    assert [row[0] for row in rows] == ["a" * 8, "c" * 8, "b" * 8]
    assert rows[0][1:] == [
        "serving",
        "0:2",
        "127.0.0.1:7000",
        "bf16",
        "8",
        "free",
        "125.0",
        *["100%", "of", "2.00", "MB", "3.0", "s", "ago"],
    ]
    assert rows[1][5] == "full"
    assert rows[2][5:8] == ["-", "125.0", "50%"]


def test_trunks_take_sessions_and_hosts_of_experts_alone_take_none() -> None:
    trunk = fact("a", Span(0, 4), spans=(), trunks=(Span(0, 4),), n_experts=2, free_sessions=7)
    experts = fact("b", Span(0, 4), spans=(), experts=(ExpertRange(Span(0, 4), (0, 1)),), n_experts=2, free_sessions=0)
    rows = {line.split()[0]: line for line in drawn(look(trunk, experts)).splitlines() if " bf16 " in line}
    assert "7 free" in rows["a" * 8]
    assert rows["b" * 8].split("bf16")[1].split()[0] == "-"


def test_what_the_gateway_says_has_a_line() -> None:
    whole = fact("a", Span(0, 4))
    assert "gateway 2 running, 1 waiting, 33.0 tok/s now" in drawn(look(whole, gateway=GatewayLook(2, 1, 33.0)))
    assert "gateway 2 running, 1 waiting\n" in drawn(look(whole, gateway=GatewayLook(2, 1))).replace(" \n", "\n")
    assert "it answered 401" in drawn(look(whole, gateway=GatewayLook(fault="it answered 401")))
    assert "gateway" not in drawn(look(whole))


# -- the verb ------------------------------------------------------------------------------------------------------


class GivenClient:
    """Says these statuses, one a call, then what Ctrl-C would."""

    def __init__(self, statuses: Sequence[SwarmStatus]) -> None:
        self._statuses = list(statuses)
        self.release = SimpleNamespace(name="fake")

    def __enter__(self) -> GivenClient:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def status(self) -> SwarmStatus:
        if not self._statuses:
            raise KeyboardInterrupt
        return self._statuses.pop(0)


def run(monkeypatch: pytest.MonkeyPatch, statuses: Sequence[SwarmStatus], *args: str) -> Result:
    monkeypatch.setattr(verb, "open_client", lambda *_: GivenClient(statuses))
    monkeypatch.setattr(verb, "pause", lambda seconds: None)
    monkeypatch.setattr("swarm.cli.top_look.time.time", lambda: NOW_S)
    monkeypatch.setattr("swarm.cli.config.default_path", lambda: Path("/nonexistent/config.toml"))
    return CliRunner().invoke(root.cli, ["top", MAGNET, *args], prog_name="swarm")


def test_once_prints_one_view_of_the_first_swarm_that_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, [seen(), seen(), seen(fact("a", Span(0, 4)))], "--once")
    assert result.exit_code == 0
    assert result.stdout.count("fake  ") == 1
    assert "1 node, 1 serving" in result.stdout


def test_once_without_nodes_ends_with_4(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, [seen()] * 100_000, "--once", "--timeout", "0.01")
    assert (result.exit_code, result.stdout) == (NoNodesFound.exit_code, "")
    assert "no node of fake was found" in result.stderr


def test_json_once_is_one_object_and_else_a_line_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = [seen(fact("a", Span(0, 2))), seen(fact("a", Span(0, 2)), fact("b", Span(2, 4)))]
    fields = json.loads(run(monkeypatch, statuses, "--once", "--json").stdout)
    assert (fields["schema"], fields["missing_layers"], fields["gateway"]) == ("swarm.top/1", [2, 3], None)
    result = run(monkeypatch, statuses, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0, "Ctrl-C is how one leaves it"
    assert [(line["event"], line["missing_layers"]) for line in lines] == [("look", [2, 3]), ("look", [])]


def test_where_there_is_no_terminal_views_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, [seen(), seen(fact("a", Span(0, 4)))])
    assert result.stdout.count("fake  ") == 2
    assert "no node is known yet" in result.stdout
    assert "no terminal" in result.stderr


@pytest.mark.parametrize("url", ["ftp://x", "127.0.0.1:8000", "http://", "http://x/?q=1"])
def test_what_is_no_gateway_s_address_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    result = run(monkeypatch, [seen()], "--gateway", url)
    assert result.exit_code == 2
    assert "http://127.0.0.1:8000" in result.stderr


def test_look_at_asks_the_client_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.cli.top_look.time.time", lambda: NOW_S)
    got = look_at(GivenClient([seen(fact("a", Span(0, 4)))]), None)  # type: ignore[arg-type]
    assert got.at_s == NOW_S
    assert got.route is not None
