"""transformers on the same weights, dtype and threads: its generate(), and the barest loop around its forward."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from node.stage import DTYPES

GENERATE = "transformers generate()"
FORWARD = "transformers forward loop"


class Transformers:
    """A release in HF's format, loaded as its users load it."""

    def __init__(self, folder: Path, dtype: str) -> None:
        from transformers import AutoModelForCausalLM
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype]).eval()

    async def generate(self, prompt: list[int], n_tokens: int) -> float:
        """Tokens/s of the tokens after the first, by generate()."""
        times = _Times()
        with torch.inference_mode():
            self._model.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), streamer=times,
                do_sample=False, max_new_tokens=n_tokens, min_new_tokens=n_tokens, pad_token_id=0,
            )  # fmt: skip
        return (n_tokens - 1) / (times.seen_s[-1] - times.seen_s[-n_tokens])

    async def forward_loop(self, prompt: list[int], n_tokens: int) -> AsyncGenerator[int, None]:
        """Greedy ids, each as soon as it is known."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self._model.config)
        ids = torch.tensor([prompt])
        for _ in range(n_tokens):
            with torch.inference_mode():
                out = self._model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            ids = out.logits[:, -1].argmax(-1, keepdim=True)
            yield int(ids)

    async def prefill(self, prompt: list[int]) -> float:
        """Prompt tokens/s, to the prompt's last logits."""
        started_s = time.perf_counter()
        with torch.inference_mode():
            self._model(torch.tensor([prompt]), use_cache=True, logits_to_keep=1).logits[:, -1].argmax(-1).item()
        return len(prompt) / (time.perf_counter() - started_s)

    def logits(self, prompt: list[int]) -> Tensor:
        """fp32 (T, vocab)."""
        with torch.inference_mode():
            return self._model(torch.tensor([prompt])).logits[0].float()


class _Times:
    """A streamer that only looks at the clock: once for the prompt, then at each token."""

    def __init__(self) -> None:
        self.seen_s: list[float] = []

    def put(self, value: Tensor) -> None:
        self.seen_s.append(time.perf_counter())

    def end(self) -> None:
        pass
