"""Addresses, as people type them and as facts carry them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.cli.release_plan import parse_experts
from swarm.errors import BadArgument
from swarm.identity import NodeKey
from swarm.terms import Address, ExpertRange, Span, counted, id_tag, merge_experts

NODE = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena"
hosts = st.sampled_from(["127.0.0.1", "::1", "fe80::1", "node.example", "localhost"])


@given(hosts, st.integers(0, 65535), st.sampled_from(["", NODE]))
def test_what_is_written_is_read_again(host: str, port: int, target: str) -> None:
    address = Address(host, port, target)
    assert Address.parse(str(address)) == address
    assert address.relay == Address(host, port)
    assert address.short == (f"{NODE[:8]}@{address.relay}" if target else str(address))


@pytest.mark.parametrize(
    "text", [f"{NODE[:-1]}@127.0.0.1:1", f"{NODE}@", f"{NODE}@{NODE}@h:1", "a b:1", "h:65536", "h", ""]
)
def test_what_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(BadArgument):
        Address.parse(text)


def test_keys_have_tags_of_their_own_in_64_bits() -> None:
    keys = [NodeKey.generate().node_id for _ in range(50)]
    assert len({id_tag(node_id) for node_id in keys}) == 50
    assert all(0 <= id_tag(node_id) < 1 << 64 for node_id in keys)


@given(st.integers(0, 3), st.integers(1, 3), st.sets(st.integers(0, 20), min_size=1))
def test_experts_are_written_as_they_are_typed(start: int, n_layers: int, expert_idxs: set[int]) -> None:
    experts = ExpertRange(Span(start, start + n_layers), tuple(sorted(expert_idxs)))
    assert merge_experts(parse_experts(str(experts))) == (experts,)


def test_runs_of_experts_are_short() -> None:
    assert str(ExpertRange(Span(0, 6), tuple(range(8)))) == "0-5:0-7"
    assert str(ExpertRange(Span(2, 3), (0, 1, 4, 5, 6, 9))) == "2:0,1,4-6,9"


def test_a_number_of_things_in_words() -> None:
    assert [counted(n, "node") for n in (0, 1, 2, 12345)] == ["0 nodes", "1 node", "2 nodes", "12345 nodes"]
    assert counted(1, "more session") == "1 more session"
