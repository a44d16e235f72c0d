"""Structured output: a grammar says what an answer may be, and becomes the set of tokens that may come next.

Promises that an answer which ends by itself is what its grammar describes, whatever the weights, and that a
constraint's state depends only on the grammar and the ids taken, so that a journal restores it. Sole importer of
llguidance. Does NOT know the model, sample, or see a logit: it hands out one bit per token id. A `Grammar` is
plain values; llguidance is imported when one is compiled, not before.
"""

from __future__ import annotations

from swarm.grammar.constraint import Constraint, GrammarCompiler, Vocabulary
from swarm.grammar.grammar import MAX_GRAMMAR_BYTES, MAX_TOOL_CALLS, Grammar

__all__ = ["MAX_GRAMMAR_BYTES", "MAX_TOOL_CALLS", "Constraint", "Grammar", "GrammarCompiler", "Vocabulary"]
