"""The texts that ship beside the weights."""

from __future__ import annotations

from pathlib import Path

from embedded.training import TrainingConfig
from swarm.release import ModelArgs


def model_card(args: ModelArgs, config: TrainingConfig) -> str:
    return f"""---
license: apache-2.0
language: [en, fr, de, es]
pipeline_tag: text-generation
---
# Pip, a very small Mixtral

A true Mixtral of {args.n_params / 1e6:.1f} million parameters: {args.n_layers} layers of dim {args.dim},
{args.n_experts} experts in each, {args.n_experts_per_tok} of them used per token, {args.n_heads} heads over
{args.n_kv_heads} key-value heads, a vocabulary of {args.vocab_size:,}. It ships with the swarm that runs it, so
that a demo has something to say and a test has something to lose.

It knows one small world, of which every word was written by a seeded generator: sums and subtraction up to 99, sorting,
the people and islands of an invented harbour town, a little common knowledge, what the parts of a swarm are, reading
short situations, phrases in French, German and Spanish, small Python functions (whole, and fill-in-the-middle), calling
a tool, and short stories. Of everything else it says that it does not know, or something wrong. Context:
{args.max_positions:,} positions, of which the first 512 were met in training.

- Trained from nothing by `scripts/train_embedded --seed {config.seed}` ({config.n_steps} steps of 8,192 rows), in 79
  minutes on two CPU cores that had other work too.
- Measured by `scripts/eval_embedded`: exact answers to held-out questions per kind, perplexity, expert load.
- Chat, system, tool-call and fill-in-the-middle templates: Mistral's version 13 (tekken.json, read by mistral-common).
- Licence: Apache-2.0, weights, tokenizer and corpus alike.
"""


def license_text() -> str:
    """The project's own licence, which the weights share."""
    return (Path(__file__).resolve().parents[2] / "LICENSE").read_text()
