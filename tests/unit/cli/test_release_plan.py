"""`swarm release plan`: what it takes, and that its table is the plan that a node would follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from swarm.cli.release import release
from swarm.cli.release_plan import parse_experts
from swarm.embedded import release_folder
from swarm.errors import BadArgument, MagnetError
from swarm.release import PieceMap, list_folder, plan_fetch, read_folder_layout
from swarm.terms import ExpertId, ExpertRange, Span


def rows(*arguments: str) -> list[dict[str, Any]]:
    ran = CliRunner().invoke(release, ["plan", *arguments, "--json"], catch_exceptions=False)
    found: list[dict[str, Any]] = json.loads(ran.stdout)["rows"]
    return found


def test_experts_by_number_and_range() -> None:
    assert parse_experts("5:3") == [ExpertId(5, 3)]
    assert parse_experts("0-5:0-7") == list(ExpertRange(Span(0, 6), tuple(range(8))))
    assert parse_experts("0-1:2, 7:0-1") == [ExpertId(0, 2), ExpertId(1, 2), ExpertId(7, 0), ExpertId(7, 1)]


@pytest.mark.parametrize("text", ["", "5", "5:", ":3", "5:3-1", "9-2:0", "a:b", "0-999999:0-999999", "-1:0"])
def test_what_names_no_expert_is_refused(text: str) -> None:
    with pytest.raises(BadArgument):
        parse_experts(text)


def test_a_folder_is_planned_as_its_torrent_will_be() -> None:
    folder = release_folder()
    (row,) = rows(str(folder), "--layers", "0:2", "--experts", "4:1")
    sizes = list_folder(folder)
    offsets = {file: sum(sizes[f] for f in sorted(sizes) if f < file) for file in sizes}
    spans, experts = [Span(0, 2)], [ExpertId(4, 1)]
    pieces = PieceMap(256 << 10, offsets, sizes)
    fetch = plan_fetch(read_folder_layout(folder, spans, experts), pieces, spans, experts)
    assert (row["fetched_bytes"], row["n_pieces"]) == (fetch.fetched_bytes, len(fetch.all_pieces))
    assert row["needed_bytes"] == fetch.needed_bytes + fetch.companion_bytes


def test_an_expert_alone_is_its_three_matrices() -> None:
    folder = release_folder()
    spans: list[Span] = []
    layout = read_folder_layout(folder, spans, [ExpertId(4, 1)])
    sizes = list_folder(folder)
    offsets = {file: sum(sizes[f] for f in sorted(sizes) if f < file) for file in sizes}
    fetch = plan_fetch(layout, PieceMap(256 << 10, offsets, sizes), spans, [ExpertId(4, 1)])
    assert fetch.needed_bytes == 2 * layout.args.n_expert_params


def test_the_true_layouts_need_no_release(tmp_path: Path) -> None:
    found = rows("--layout", "mixtral-8x7b", "--experts", "5:3", "--format", "hf", "--piece-size", str(4 << 20))
    assert [(row["format"], row["piece_size"]) for row in found] == [("hf", 4 << 20)]
    assert found[0]["needed_bytes"] > 352_321_536
    assert found[0]["ratio"] > 1.02, "4 MiB, the old choice, was too coarse for one expert"


@pytest.mark.parametrize(
    "arguments", [(), ("--layers", "0:2"), ("--layout", "mixtral-8x7b", "folder"), ("folder", "--format", "hf")]
)
def test_contradictory_arguments_are_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(BadArgument):
        CliRunner().invoke(release, ["plan", *arguments], catch_exceptions=False)


def test_a_name_that_means_nothing_is_said_before_what_it_lacks() -> None:
    with pytest.raises(MagnetError, match="there is no folder or file 'nosuch' here, and 'nosuch' is not a magnet"):
        CliRunner().invoke(release, ["plan", "nosuch"], catch_exceptions=False)
