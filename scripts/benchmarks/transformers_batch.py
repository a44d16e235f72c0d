"""transformers in its best shape on a CPU or a GPU: batches of sequences, and one layer by itself.

Its attention and its experts come in several implementations, and which is fastest depends on the machine and on the
rows: each shape is tried with all of them once, and then runs with the fastest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.engine import wait_for
from benchmarks.fastest import fastest
from node.stage import DTYPES
from node.weights.writers import hf_config, to_halves
from swarm.release import ModelArgs

WAYS = [f"{attention}, {experts}" for attention in ("sdpa", "eager") for experts in ("eager", "grouped_mm")]
WAYS_ON_A_GPU = [*WAYS, "sdpa, batched_mm"]
"""To decode: that way with experts copies an expert's weights for every row, and is slower on a CPU from one row on."""

N_TRIED_TOKENS = 3


class TransformersBatch:
    """A release in HF's format; decodes k sequences in lockstep, one token each a step."""

    def __init__(self, folder: Path, dtype: str, device: str = "cpu") -> None:
        from transformers import AutoModelForCausalLM
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype]).eval().to(device)
        self._caches: dict[tuple[int, int], tuple[Any, Tensor]] = {}  # by shape: the prompts' cache, their next ids
        self.ways: dict[str, str] = {}  # by shape, what it runs with
        self._all_ways = ways_on(device)

    async def decode(self, prompts: list[list[int]], n_tokens: int) -> float:
        """Tokens/s of all sequences together, greedily on from the prompts, which are of one length and not timed."""
        shape = f"decode {len(prompts)} x {len(prompts[0])}"
        if shape not in self.ways:
            tries = {way: partial(self._decode, prompts, N_TRIED_TOKENS, way) for way in self._all_ways}
            self.ways[shape] = fastest(tries, 1)
        return self._decode(prompts, n_tokens, self.ways[shape])

    async def prefill(self, prompt: list[int]) -> float:
        """Prompt tokens/s, to the last token's logits."""
        shape = f"prefill {len(prompt)}"
        if shape not in self.ways:
            self.ways[shape] = fastest({way: partial(self._prefill, prompt, way) for way in WAYS}, 1)
        return self._prefill(prompt, self.ways[shape])

    def logits(self, prompt: list[int]) -> Tensor:
        """fp32 (T, vocab)."""
        with torch.inference_mode():
            return self._model(torch.tensor([prompt])).logits[0].float()

    def _decode(self, prompts: list[list[int]], n_tokens: int, way: str) -> float:
        with torch.inference_mode():
            cache, ids = self._prompted(prompts)
            self._choose(way)
            started_s = time.perf_counter()
            for _ in range(n_tokens):
                ids = self._step(ids, cache)
            ids.tolist()
            elapsed_s = time.perf_counter() - started_s
            cache.crop(-n_tokens)
        return n_tokens * len(prompts) / elapsed_s

    def _prefill(self, prompt: list[int], way: str) -> float:
        from transformers import DynamicCache

        self._choose(way)
        with torch.inference_mode():
            started_s = time.perf_counter()
            self._step(self._ids([prompt]), DynamicCache(config=self._model.config)).tolist()
            return len(prompt) / (time.perf_counter() - started_s)

    def _prompted(self, prompts: list[list[int]]) -> tuple[Any, Tensor]:
        from transformers import DynamicCache

        shape = len(prompts), len(prompts[0])
        if shape not in self._caches:
            self._choose(WAYS[0])  # whatever it decodes with: one of them has no memory for so many rows
            cache = DynamicCache(config=self._model.config)
            self._caches[shape] = cache, self._step(self._ids(prompts), cache)
        return self._caches[shape]

    def _step(self, ids: Tensor, cache: Any) -> Tensor:
        logits = self._model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        return logits[:, -1].argmax(-1, keepdim=True)

    def _ids(self, prompts: list[list[int]]) -> Tensor:
        return torch.tensor(prompts, device=self._model.device)

    def _choose(self, way: str) -> None:
        attention, experts = way.split(", ")
        self._model.set_attn_implementation(attention)
        self._model.set_experts_implementation(experts)


class TransformersLayer:
    """Layer 0 of a Mixtral in memory, and a cache of n_cached random positions; its experts are a copy of tensors'.

    tensors: 'layers.0.…' by canonical name, interleaved. Shapes of what flows through: h (1, 1, D).
    """

    def __init__(
        self, args: ModelArgs, tensors: Mapping[str, Tensor], n_cached: int, device: torch.device | str = "cpu"
    ) -> None:
        from transformers import DynamicCache, MixtralConfig
        from transformers.models.mixtral.modeling_mixtral import MixtralDecoderLayer, MixtralRotaryEmbedding

        self._config: Any = MixtralConfig(**hf_config(args))
        dtype = next(iter(tensors.values())).dtype
        self._device = torch.device(device)
        with torch.device("meta"):
            self._layer: Any = MixtralDecoderLayer(self._config, 0)
        self._layer.load_state_dict(_hf_state(args, tensors), assign=True)
        self._layer.eval().requires_grad_(False).to(device)
        self._rotary: Any = MixtralRotaryEmbedding(self._config).to(device)
        self._rows = torch.randn(16, 1, 1, args.dim, generator=torch.Generator().manual_seed(1)).to(device, dtype)
        self._n_cached = n_cached
        self._n_turns = 0
        self._prompt_ways: dict[int, str] = {}
        self._cache: Any = DynamicCache(config=self._config)
        keys, values = torch.randn(2, 1, args.n_kv_heads, n_cached, args.head_dim).to(device, dtype)
        self._cache.update(keys, values, 0)
        self.way = fastest({way: partial(self._tokens, way, 1) for way in ways_on(device)}, 2)

    async def tokens_per_s(self, n_tokens: int = 4) -> float:
        """One turn: single tokens at the same position, of rows that go to different experts."""
        return self._tokens(self.way, n_tokens)

    async def prompt_tokens_per_s(self, n_rows: int, n_prompts: int) -> float:
        """One turn: prompts of n_rows, with nothing before them."""
        from transformers import DynamicCache

        ways = self._prompt_ways
        if n_rows not in ways:
            tries = {way: partial(self._prompts, way, n_rows, 2, DynamicCache) for way in WAYS}
            ways[n_rows] = fastest(tries, 1)
        return self._prompts(ways[n_rows], n_rows, n_prompts, DynamicCache)

    def _prompts(self, way: str, n_rows: int, n_prompts: int, new_cache: Any) -> float:
        self._choose(way)
        h = self._rows.view(1, 16, -1).repeat(1, n_rows // 16, 1)
        started_s = time.perf_counter()
        with torch.inference_mode():
            for _ in range(n_prompts):
                rotary = self._rotary(h, torch.arange(n_rows, device=self._device)[None])
                self._layer(h, position_embeddings=rotary, past_key_values=new_cache(config=self._config))
            wait_for(self._device)
        return n_prompts * n_rows / (time.perf_counter() - started_s)

    def forward(self, row: Tensor) -> Tensor:
        """h (1, 1, D) behind the cached positions -> (1, 1, D); the cache is left as it was."""
        with torch.inference_mode():
            positions = torch.tensor([[self._n_cached]], device=self._device)
            rotary = self._rotary(row, positions)
            h: Tensor = self._layer(row, position_embeddings=rotary, past_key_values=self._cache)
            self._cache.crop(-1)
        return h

    def _tokens(self, way: str, n_tokens: int) -> float:
        self._choose(way)
        started_s = time.perf_counter()
        for nth in range(n_tokens):
            self.forward(self._rows[(self._n_turns + nth) % 16])
        wait_for(self._device)
        self._n_turns += n_tokens
        return n_tokens / (time.perf_counter() - started_s)

    def _choose(self, way: str) -> None:
        attention, experts = way.split(", ")
        self._config._attn_implementation = attention
        self._config._experts_implementation = experts


def ways_on(device: torch.device | str) -> list[str]:
    return WAYS_ON_A_GPU if torch.device(device).type == "cuda" else WAYS


def _hf_state(args: ModelArgs, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A layer's tensors as transformers' modules hold them: w1 and w3 of all experts in one, w2 in another."""
    prefix = "layers.0."
    state: dict[str, Tensor] = {}
    for ours, theirs in _HF_MODULES.items():
        name = f"{prefix}{ours}.weight"
        state[f"{theirs}.weight"] = to_halves(name, tensors[name], args.head_dim)
    experts = [f"{prefix}feed_forward.experts.{expert_idx}" for expert_idx in range(args.n_experts)]
    state["mlp.experts.gate_up_proj"] = torch.stack(
        [torch.cat([tensors[f"{expert}.w1.weight"], tensors[f"{expert}.w3.weight"]]) for expert in experts]
    )
    state["mlp.experts.down_proj"] = torch.stack([tensors[f"{expert}.w2.weight"] for expert in experts])
    return state


_HF_MODULES = {
    "attention_norm": "input_layernorm",
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate",
}
