"""Which layers have hosts, and why the other facts do not count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from swarm.facts import NodeFact, NodeState
from swarm.routing.experts import describe_missing, layers_served, missing_experts
from swarm.terms import NodeId, Profile, Span, counted, merge_spans, short_id


def coverage(facts: Sequence[NodeFact], n_layers: int, now_s: float) -> tuple[int, ...]:
    """For each layer the number of nodes that serve it now, full or not, to sessions of one profile.

    A session stays within one profile: nodes of another do not fill its holes. Counted are those of the profile that
    leaves the fewest layers out; of equal ones that which has the most hosts. A trunk counts where all of its experts
    have hosts.
    """
    known = newest(facts)
    serving = [f for f in known if unfit(f, n_layers, now_s) is None]
    layers = layers_served(serving, in_force(known, n_layers, now_s))
    best = (0,) * n_layers
    for profile in profiles_of(serving):
        mine = [f for f in serving if f.profile.satisfies(profile)]
        hosts = tuple(sum(any(idx in span for span in layers[f.node_id]) for f in mine) for idx in range(n_layers))
        best = max(best, hosts, key=lambda counts: (sum(map(bool, counts)), sum(counts)))
    return best


def expert_coverage(
    facts: Sequence[NodeFact], n_layers: int, n_experts: int, now_s: float
) -> tuple[tuple[int, ...], ...]:
    """For each layer and expert the number of nodes that answer for it, those that host whole layers among them, of the
    profile that leaves the fewest experts out; of equal ones that which has the most hosts. Empty for a dense model.
    """
    known = [f for f in in_force(newest(facts), n_layers, now_s) if f.n_experts == n_experts]
    best: tuple[tuple[int, ...], ...] = ((0,) * n_experts,) * n_layers if n_experts else ()
    for profile in profiles_of(known) if n_experts else ():
        counts = [[0] * n_experts for _ in range(n_layers)]
        for fact in known:
            for expert in (e for experts in fact.served_experts if fact.profile.satisfies(profile) for e in experts):
                counts[expert.layer_idx][expert.expert_idx] += 1
        best = max(best, tuple(map(tuple, counts)), key=_n_covered)
    return best


def _n_covered(counts: Sequence[Sequence[int]]) -> tuple[int, int]:
    flat = [n_hosts for of_layer in counts for n_hosts in of_layer]
    return sum(map(bool, flat)), sum(flat)


def in_force(facts: Iterable[NodeFact], n_layers: int, now_s: float) -> list[NodeFact]:
    """Those that have not expired, of this model."""
    return [f for f in facts if now_s < f.issued_at_s + f.ttl_s and f.n_layers == n_layers]


def profiles_of(facts: Iterable[NodeFact]) -> list[Profile]:
    """Every profile that some node has, and what they come to without their promises."""
    profiles = {fact.profile for fact in facts}
    return sorted(profiles | {profile.base for profile in profiles}, key=str)


def newest(facts: Iterable[NodeFact]) -> list[NodeFact]:
    """One fact per node, that of the highest seq (then the later one issued), in the order of node ids."""
    best: dict[NodeId, NodeFact] = {}
    for fact in facts:
        known = best.get(fact.node_id)
        if known is None or (known.seq, known.issued_at_s) < (fact.seq, fact.issued_at_s):
            best[fact.node_id] = fact
    return [best[node_id] for node_id in sorted(best)]


def unfit(fact: NodeFact, n_layers: int, now_s: float) -> str | None:
    """Why this node serves nobody now, in a word or two; None if it does serve."""
    if now_s >= fact.issued_at_s + fact.ttl_s:
        return "its fact has expired"
    if fact.n_layers != n_layers:
        return f"it speaks of a model with {fact.n_layers} layers"
    if fact.state is not NodeState.SERVING and not fact.served_spans and not fact.served_trunks:
        return f"it is {fact.state.value}"
    return None


def unavailable(
    fact: NodeFact, n_layers: int, now_s: float, profile: Profile | None, exclude: frozenset[NodeId]
) -> str | None:
    """Why a new session of this profile (None: any) cannot have this node; None if it can."""
    if fact.node_id in exclude:
        return "it is excluded, having failed"
    reason = unfit(fact, n_layers, now_s)
    if reason is None and fact.free_sessions <= 0:
        return "it is full"
    if reason is None and profile is not None and not fact.profile.satisfies(profile):
        return f"its profile is {fact.profile}, not {profile}"
    return reason


def layer_ranges(layers: Iterable[int]) -> str:
    """Layers for people, as START:END ranges like spans are written: {0, 1, 2, 7} -> "0:3, 7:8"."""
    return ", ".join(str(span) for span in merge_spans([Span(idx, idx + 1) for idx in layers]))


def describe_gap(
    missing: Sequence[int], facts: Sequence[NodeFact], reasons: dict[NodeId, str], n_layers: int, now_s: float
) -> str:
    """What is missing, who would have had it and why they do not count. What mends it is for who knows the magnet."""
    lines = [f"layers {layer_ranges(missing)} of {n_layers} have no node that can take a session"]
    if lacking := missing_experts(in_force(facts, n_layers, now_s), missing):
        lines.append(describe_missing(lacking))
    hosts = [f for f in facts if any(idx in span for span in (*f.spans, *f.trunks) for idx in missing)]
    for fact in hosts[:8]:
        spans = ", ".join([*map(str, fact.spans), *(f"the trunk of {span}" for span in fact.trunks)])
        loaded = ", ".join(map(str, (*fact.loaded_spans, *fact.loaded_trunks)))
        joining = f"it has loaded only {loaded} so far" if loaded else "not all of the experts have hosts"
        reason = reasons.get(fact.node_id) or joining
        lines.append(f"{short_id(fact.node_id)} hosts {spans}, but {reason}")
    if len(hosts) > 8:
        lines.append(f"{counted(len(hosts) - 8, 'other')} do not count either")
    if not facts:
        lines.append("no node of this release is known at all")
    elif not hosts:
        lines.append(f"of the nodes that are known ({len(facts)}) none hosts them")
    return "; ".join(lines)
