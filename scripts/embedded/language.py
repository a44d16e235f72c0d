"""Perplexity and the experts' load on held-out text, by transformers: a reading of the weights that is not our own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from embedded.corpus import Document
from embedded.rendering import Renderer


@dataclass(frozen=True, slots=True)
class LanguageMeasures:
    """Perplexity per learned token (answers, and raw text as a whole); loads: per layer and expert, times the mean."""

    perplexity: float
    perplexities: dict[str, float]
    expert_loads: tuple[tuple[float, ...], ...]


@torch.inference_mode()
def measure_language(folder: Path, documents: Mapping[str, Sequence[Document]], renderer: Renderer) -> LanguageMeasures:
    """In fp32, each document on its own."""
    from transformers import MixtralForCausalLM

    model = MixtralForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    config = model.config
    chosen = torch.zeros(config.num_hidden_layers, config.num_local_experts)
    nats: dict[str, float] = {}
    n_tokens: dict[str, int] = {}
    for kind, of_kind in documents.items():
        for document in of_kind:
            rendered = renderer.render(document)
            ids = torch.tensor([rendered.ids])
            out = model(ids[:, :-1], output_router_logits=True)
            learned = torch.tensor(rendered.learned[1:])
            logprobs = out.logits[0].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            nats[kind] = nats.get(kind, 0.0) - float(logprobs[learned].sum())
            n_tokens[kind] = n_tokens.get(kind, 0) + int(learned.sum())
            for layer_idx, router_logits in enumerate(out.router_logits):
                top = router_logits.topk(config.num_experts_per_tok).indices
                chosen[layer_idx] += torch.bincount(top.flatten(), minlength=config.num_local_experts)
    loads = chosen / chosen.mean(dim=1, keepdim=True)
    return LanguageMeasures(
        math.exp(sum(nats.values()) / sum(n_tokens.values())),
        {kind: math.exp(nats[kind] / n_tokens[kind]) for kind in nats},
        tuple(tuple(row) for row in loads.tolist()),
    )
