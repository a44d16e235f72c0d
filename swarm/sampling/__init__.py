"""Logits -> token: the same row, parameters, seed and position give the same token on every machine.

Everything here is a pure function of its arguments, apart from StopMatcher, which holds the text that one generation
has not shown yet. The room does NOT know where logits come from, what a token's text is (StopMatcher is handed text),
how many tokens were generated so far, or who draws the seed.
"""

from __future__ import annotations

from swarm.sampling.params import MAX_LOGPROBS, TAIL_CUT, SamplingParams
from swarm.sampling.sampler import Sampled, candidates, sample
from swarm.sampling.stop import StopMatcher

__all__ = ["MAX_LOGPROBS", "TAIL_CUT", "Sampled", "SamplingParams", "StopMatcher", "candidates", "sample"]
