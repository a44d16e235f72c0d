"""The demo's own arithmetic, and how it fails; the demo as a whole runs in tests/flows."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from swarm.cli import local_swarm
from swarm.cli.demo import mean_hop_times, print_spans
from swarm.cli.local_swarm import split_layers
from swarm.cli.main import cli
from swarm.client.values import TokenEvent
from swarm.embedded import NAME, release_folder
from swarm.messages import HopTime
from swarm.terms import NodeId, Span

NODES = (NodeId("a" * 52), NodeId("b" * 52))


@pytest.mark.parametrize(
    ("n_layers", "spans"),
    [(12, ["0:4", "4:8", "8:12"]), (13, ["0:4", "4:8", "8:13"]), (2, ["0:1", "1:2"]), (1, ["0:1"])],
)
def test_layers_are_split_evenly_without_gaps(n_layers: int, spans: list[str]) -> None:
    assert split_layers(n_layers, 3) == [Span.parse(span) for span in spans]


def event(index: int, *compute_s: float, elapsed_s: float = 0.0) -> TokenEvent:
    hop_times = tuple(HopTime(node_id, 0.001, seconds) for node_id, seconds in zip(NODES, compute_s, strict=True))
    return TokenEvent(index, 1, "x", 0.0, (), hop_times, elapsed_s)


def test_hop_times_leave_the_prompt_out_where_they_can() -> None:
    means = mean_hop_times([event(0, 9.0, 9.0), event(1, 0.001, 0.003), event(2, 0.003, 0.005)])
    assert [hop["node_id"] for hop in means] == list(NODES)
    assert [hop["mean_s"] for hop in means] == pytest.approx([0.003, 0.005])
    assert [hop["mean_s"] for hop in mean_hop_times([event(0, 1.0, 2.0)])] == pytest.approx([1.001, 2.001])
    assert mean_hop_times([]) == []


def test_spans_are_a_row_per_token(capsys: pytest.CaptureFixture[str]) -> None:
    print_spans([event(0, 0.02, 0.03, elapsed_s=0.1), event(1, 0.002, 0.003, elapsed_s=0.11)])
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split() == ["token", "aaaaaaaa", "bbbbbbbb", "between", "in", "all"]
    assert first.split() == ["0", "21", "ms", "31", "ms", "48", "ms", "100", "ms"]
    assert second.split() == ["1", "3.0", "ms", "4.0", "ms", "3.0", "ms", "10", "ms"]
    print_spans([])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("command", [["demo"], ["chat", "demo"], ["generate", "demo", "Hello"]])
def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.setattr(local_swarm.importlib.util, "find_spec", lambda name: None)
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 1
    assert "pip install 'mistral-swarm[node]'" in result.stderr


def test_the_embedded_release_is_copied_whole_and_never_over_another(tmp_path: Path) -> None:
    copied = CliRunner().invoke(cli, ["release", "embedded", str(tmp_path / "new")])
    assert copied.exit_code == 0, copied.output
    target = tmp_path / "new" / NAME
    assert copied.stdout == f"{target}\n"
    source = release_folder()
    assert {p.name: p.read_bytes() for p in target.iterdir()} == {p.name: p.read_bytes() for p in source.iterdir()}
    again = CliRunner().invoke(cli, ["release", "embedded", str(tmp_path / "new")])
    assert again.exit_code == 2
    assert "exists already" in again.stderr


def test_a_gateway_of_the_embedded_release_stands_alone() -> None:
    result = CliRunner().invoke(cli, ["gateway", "demo", "magnet:?xt=urn:btih:" + "0" * 40])
    assert result.exit_code == 2
    assert "stands alone" in result.stderr
