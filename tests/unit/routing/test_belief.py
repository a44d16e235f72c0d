"""What nodes say of links and speeds, bounded by what the asker measured."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.facts import NodeFact, NodeState
from swarm.identity import NodeKey
from swarm.routing import believe, links_of
from swarm.terms import Address, Infohash, NodeId, Profile, id_tag

IDS = [NodeKey.generate().node_id for _ in range(4)]
seconds = st.floats(0.0, 5.0)
STRANGER_TAG = 7


def fact(node_id: NodeId, rtts: dict[int, float], layer_time_s: float = 0.0) -> NodeFact:
    return NodeFact(
        node_id, Infohash("ab" * 20), Address("192.0.2.1", 1), 1, 1.0, 60.0, NodeState.SERVING, (), Profile("bf16"), 4,
        layer_time_s=layer_time_s, rtts=tuple(rtts.items()),
    )  # fmt: skip


@given(st.dictionaries(st.tuples(st.sampled_from(range(4)), st.sampled_from(range(4))), seconds),
       st.dictionaries(st.sampled_from(IDS), seconds))  # fmt: skip
def test_a_link_is_never_shorter_than_either_end_says_nor_than_its_ends_distances_allow(
    said: dict[tuple[int, int], float], rtt_s: dict[NodeId, float]
) -> None:
    facts = [fact(a, {id_tag(IDS[j]): s for (i, j), s in said.items() if i == n}) for n, a in enumerate(IDS)]
    links = links_of(facts, rtt_s)
    assert all(a < b for a, b in links)
    for (i, j), link_s in said.items():
        pair = (min(IDS[i], IDS[j]), max(IDS[i], IDS[j]))
        assert i == j or links[pair] >= link_s
    for (a, b), link_s in links.items():
        if a in rtt_s and b in rtt_s:
            assert link_s >= abs(rtt_s[a] - rtt_s[b]) / 2
        i, j = IDS.index(a), IDS.index(b)
        bounds = [said.get((i, j), 0.0), said.get((j, i), 0.0), abs(rtt_s.get(a, 0.0) - rtt_s.get(b, 0.0)) / 2]
        assert link_s <= max(bounds)


def test_links_to_strangers_and_to_oneself_are_none() -> None:
    assert links_of([fact(IDS[0], {STRANGER_TAG: 0.1, id_tag(IDS[0]): 0.0})], {}) == {}


def test_what_was_seen_stands_in_for_what_was_said_where_it_is_slower() -> None:
    facts = [fact(IDS[0], {}, 0.001), fact(IDS[1], {}, 0.5), fact(IDS[2], {}, 0.0), fact(IDS[3], {}, 0.2)]
    seen = {IDS[0]: 0.1, IDS[1]: 0.1, IDS[2]: 0.1}
    assert [f.layer_time_s for f in believe(facts, seen)] == [0.1, 0.5, 0.1, 0.2]
