"""What a client hands to its caller."""

from __future__ import annotations

from dataclasses import dataclass

from swarm.facts import NodeFact, NodeState, Route
from swarm.messages import HopTime
from swarm.release import ModelArgs
from swarm.terms import ExpertId, Infohash, Span, merge_experts, merge_spans
from swarm.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ClientRelease:
    """What a client keeps of a release: everything but the weights."""

    name: str
    infohash: Infohash
    args: ModelArgs
    tokenizer: Tokenizer | None  # None when the release ships none: token ids in, token ids out


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One generated token.

    index: 0 for the first. text: what it adds to the answer; may be empty (half a character, a possible stop string).
    logprob, top_logprobs: natural logarithms, of the model's own distribution (temperature 1), the latter (id,
    logprob); under a grammar, of that distribution over the ids that the grammar allows here. hop_times: each hop's
    seconds for the step that led to it; elapsed_s: since the generation began.
    """

    index: int
    id: int
    text: str
    logprob: float
    top_logprobs: tuple[tuple[int, float], ...]
    hop_times: tuple[HopTime, ...]
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Usage:
    """prompt_tokens_cached: of the prompt's, those that were found computed already when the generation began."""

    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_cached: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds. first_token_s: from the request to the first token (route, prefill and all).

    n_replays: routes lost and replaced. n_new_tokens: made by this run; a resumed generation has others too.
    """

    first_token_s: float
    total_s: float
    n_replays: int
    n_new_tokens: int

    @property
    def tokens_per_s(self) -> float:
        """Decode speed: tokens after the first over the time after the first; 0.0 for fewer than two."""
        seconds = self.total_s - self.first_token_s
        return (self.n_new_tokens - 1) / seconds if self.n_new_tokens > 1 and seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished (or cancelled) generation.

    ids: generated token ids, the end-of-sequence id included when it came. text: their text without stop string.
    finish_reason: "stop" (end of sequence, a stop string, or a grammar after which nothing can follow), "length"
    (max_tokens or the context), "cancelled".
    logprobs: one per id. seed: what the noise was keyed by; with it the same call gives the same ids.
    """

    text: str
    ids: tuple[int, ...]
    finish_reason: str
    usage: Usage
    logprobs: tuple[float, ...]
    route: Route | None
    timings: Timings
    seed: int


@dataclass(frozen=True, slots=True)
class SwarmStatus:
    """The swarm of a release as one client sees it. hosts_per_layer: serving nodes that one session
    could use (of one profile), by layer. hosts_per_expert: nodes that answer for each expert of each layer, empty for a
    dense model.
    """

    name: str
    infohash: Infohash
    n_layers: int
    nodes: tuple[NodeFact, ...]
    hosts_per_layer: tuple[int, ...]
    hosts_per_expert: tuple[tuple[int, ...], ...] = ()

    @property
    def missing_layers(self) -> tuple[int, ...]:
        return tuple(i for i, n_hosts in enumerate(self.hosts_per_layer) if n_hosts == 0)

    @property
    def missing_experts(self) -> tuple[ExpertId, ...]:
        """Of the missing layers, the experts without a host where some node has the trunk, now or soon, or other
        experts.
        """
        by_layer = {i: self.hosts_per_expert[i] for i in self.missing_layers if i < len(self.hosts_per_expert)}
        trunks = self._trunk_layers
        return tuple(
            ExpertId(layer_idx, expert_idx)
            for layer_idx, counts in by_layer.items()
            if any(counts) or layer_idx in trunks
            for expert_idx, n_hosts in enumerate(counts)
            if n_hosts == 0
        )

    @property
    def mending_options(self) -> str:
        """What to start a node with that fills the holes: experts where only they are missing, else layers. Nothing for
        layers that lack only a trunk that is joining.
        """
        trunks = self._trunk_layers
        lacking = [expert for expert in self.missing_experts if expert.layer_idx in trunks]
        mended = {expert.layer_idx for expert in lacking} | self._awaited_layers
        layers = [Span(idx, idx + 1) for idx in self.missing_layers if idx not in mended]
        experts = (f"--experts {experts}" for experts in merge_experts(lacking))
        return " ".join([*(f"--layers {span}" for span in merge_spans(layers)), *experts])

    @property
    def _trunk_layers(self) -> frozenset[int]:
        """Those whose trunk some node serves, or is joining with."""
        served = (layer_idx for fact in self.nodes for span in fact.served_trunks for layer_idx in span)
        return self._awaited_layers | frozenset(served)

    @property
    def _awaited_layers(self) -> frozenset[int]:
        """Those whose trunk is joining."""
        joining = (fact for fact in self.nodes if fact.state is NodeState.JOINING)
        return frozenset(layer_idx for fact in joining for span in fact.trunks for layer_idx in span)
