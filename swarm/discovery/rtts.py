"""Round trips as measured here: the shortest of the last few to each node."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from swarm.terms import NodeId, id_tag

N_SAMPLES = 3
"""Of one node. More of them hide a busy moment better, and a link that became slow for longer."""

MAX_NODES = 1024


class RttBook:
    """Keeps N_SAMPLES of each of the MAX_NODES nodes that were measured last.

    A sample is the time from asking to being answered: a node can look farther away than it is, and never nearer.
    """

    def __init__(self) -> None:
        self._samples: dict[NodeId, deque[float]] = {}

    def note(self, node_id: NodeId, rtt_s: float) -> None:
        samples = self._samples.pop(node_id, None) or deque(maxlen=N_SAMPLES)
        samples.append(rtt_s)
        self._samples[node_id] = samples  # the latest at the end
        while len(self._samples) > MAX_NODES:
            del self._samples[next(iter(self._samples))]

    def rtts_s(self) -> Mapping[NodeId, float]:
        return {node_id: min(samples) for node_id, samples in self._samples.items()}

    def nearest(self, n: int, among: frozenset[NodeId]) -> tuple[tuple[int, float], ...]:
        """(id_tag, seconds) of the n nearest of these nodes, as a fact states them."""
        rtts = sorted((rtt_s, node_id) for node_id, rtt_s in self.rtts_s().items() if node_id in among)
        return tuple((id_tag(node_id), rtt_s) for rtt_s, node_id in rtts[:n])
