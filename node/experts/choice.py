"""Which hosts to ask for some experts. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

WORTH_A_MESSAGE = 1.5
"""A host that takes up to so many times as long as the best one is asked where it saves a message: every message is one
more that can be late."""

H = TypeVar("H", bound=Hashable)


def choose_hosts(candidates: Mapping[int, Sequence[H]], cost_s: Mapping[H, float]) -> dict[H, tuple[int, ...]]:
    """Host -> the experts to ask of it, so that each expert is asked for once: quick hosts, and of those few.

    candidates: the hosts of each expert, at least one, best known first among equal ones.
    """
    order = {host: nth for nth, host in enumerate(dict.fromkeys(h for hosts in candidates.values() for h in hosts))}
    good: dict[H, list[int]] = {}
    for expert_idx, hosts in candidates.items():
        limit_s = WORTH_A_MESSAGE * min(cost_s[host] for host in hosts)
        for host in hosts:
            if cost_s[host] <= limit_s:
                good.setdefault(host, []).append(expert_idx)
    chosen: dict[H, tuple[int, ...]] = {}
    left = set(candidates)
    while left:
        host = min(good, key=lambda host: (-len(left.intersection(good[host])), cost_s[host], order[host]))
        chosen[host] = tuple(sorted(left.intersection(good.pop(host))))
        left.difference_update(chosen[host])
    return chosen
