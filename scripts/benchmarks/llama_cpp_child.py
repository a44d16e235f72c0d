"""llama.cpp in a process of its own: `.venv/peers/bin/python -m benchmarks.llama_cpp_child`.

Reads one JSON object a line from stdin ('do' names the method, the rest are its arguments), answers one on stdout:
{"answer": …} or {"error": …}. Ends with its stdin. What llama.cpp itself prints goes to stderr.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from benchmarks.gguf_release import write_gguf

Prompts = list[list[int]]
_FTYPES = {"q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}


class Engine:
    """One model, and contexts of it by shape, prompts included. Everything on n_threads threads."""

    def __init__(self, n_threads: int) -> None:
        self._n_threads = n_threads
        self._model: Any = None
        self._contexts: dict[str, _Context] = {}
        llama_cpp.llama_backend_init()

    def convert(self, folder: str, path: str, all_fp32: bool) -> float:
        """Seconds."""
        started_s = time.perf_counter()
        write_gguf(Path(folder), Path(path), all_fp32)
        return time.perf_counter() - started_s

    def quantize(self, path: str, to: str, quantization: str) -> float:
        """path, a GGUF in bf16 or fp32, as another one by llama.cpp's own quantiser -> seconds."""
        started_s = time.perf_counter()
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype = _FTYPES[quantization]
        if llama_cpp.llama_model_quantize(path.encode(), to.encode(), ctypes.byref(params)) != 0:
            raise RuntimeError(f"llama.cpp could not quantise {path}")
        return time.perf_counter() - started_s

    def load(self, path: str, repacked: bool) -> int:
        """Replace the model -> its bytes, read into memory. repacked: llama.cpp may lay weights out for this CPU."""
        self.unload()
        params = llama_cpp.llama_model_default_params()
        params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE  # mapped, decoding is as fast within 3 %
        params.use_extra_bufts = repacked
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        if not self._model:
            raise RuntimeError(f"llama.cpp could not load {path}")
        return int(llama_cpp.llama_model_size(self._model))

    def unload(self) -> None:
        """Free the model, if there is one, and its contexts."""
        for context in self._contexts.values():
            llama_cpp.llama_free(context.handle)
        self._contexts.clear()
        if self._model:
            llama_cpp.llama_model_free(self._model)
            self._model = None

    def decode(self, prompts: Prompts, n_tokens: int, flash: bool) -> dict[str, Any]:
        """Continue each prompt greedily by n_tokens, all of them one token a step; only those steps are timed."""
        key = json.dumps([prompts, flash])
        if key not in self._contexts:
            context = _Context(self._model, len(prompts), max(map(len, prompts)) + 256, self._n_threads, flash)
            self._contexts[key] = context
            context.feed_prompts(prompts)
        return self._contexts[key].decode(n_tokens)

    def prefill(self, prompt: list[int], flash: bool) -> float:
        """Prompt tokens/s, to the last token's logits."""
        context = self._context_of_one(len(prompt), flash)
        started_s = time.perf_counter()
        context.step([(id, position, 0, position == len(prompt) - 1) for position, id in enumerate(prompt)])
        context.argmax(-1)
        return len(prompt) / (time.perf_counter() - started_s)

    def logits(self, ids: list[int]) -> str:
        """fp32 (T, vocab), little-endian, in base64."""
        context = self._context_of_one(len(ids), flash=False)
        context.step([(id, position, 0, True) for position, id in enumerate(ids)])
        return base64.b64encode(np.stack([context.logits(idx) for idx in range(len(ids))]).tobytes()).decode()

    def _context_of_one(self, n_tokens: int, flash: bool) -> _Context:
        """A context for one sequence, emptied."""
        key = json.dumps([n_tokens, flash])
        if key not in self._contexts:
            self._contexts[key] = _Context(self._model, 1, n_tokens, self._n_threads, flash)
        context = self._contexts[key]
        context.clear()
        return context


class _Context:
    """A KV cache for some sequences, and steps over them. handle: llama.cpp's own."""

    def __init__(self, model: Any, n_sequences: int, n_tokens: int, n_threads: int, flash: bool) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = n_sequences * (-(-n_tokens // 256) * 256)
        params.n_batch = params.n_ubatch = max(512, n_sequences)
        params.n_seq_max = n_sequences
        params.n_threads = params.n_threads_batch = n_threads
        params.flash_attn_type = (
            llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        params.no_perf = True
        self.handle = llama_cpp.llama_init_from_model(model, params)
        if not self.handle:
            raise RuntimeError(f"llama.cpp could not make a context of {params.n_ctx} tokens")
        self._memory = llama_cpp.llama_get_memory(self.handle)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self._batch = llama_cpp.llama_batch_init(params.n_batch, 0, 1)
        self._first: list[int] = []  # by sequence, the token after its prompt
        self._lengths: list[int] = []  # by sequence, its prompt's

    def clear(self) -> None:
        llama_cpp.llama_memory_clear(self._memory, False)

    def feed_prompts(self, prompts: Prompts) -> None:
        for sequence, prompt in enumerate(prompts):
            last = len(prompt) - 1
            for start in range(0, len(prompt), 512):
                chunk = list(enumerate(prompt))[start : start + 512]
                self.step([(id, position, sequence, position == last) for position, id in chunk])
            self._first.append(self.argmax(-1))
            self._lengths.append(len(prompt))

    def decode(self, n_tokens: int) -> dict[str, Any]:
        """From the prompts on, whatever was decoded before -> tokens/s of all sequences, and each one's ids."""
        for sequence, length in enumerate(self._lengths):
            llama_cpp.llama_memory_seq_rm(self._memory, sequence, length, -1)
        ids = [[id] for id in self._first]
        started_s = time.perf_counter()
        for step_idx in range(n_tokens):
            self.step([(ids[s][-1], length + step_idx, s, True) for s, length in enumerate(self._lengths)])
            for sequence in range(len(ids)):
                ids[sequence].append(self.argmax(sequence))
        elapsed_s = time.perf_counter() - started_s
        return {"tokens_per_s": n_tokens * len(ids) / elapsed_s, "ids": ids}

    def step(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """rows: id, position, sequence, whether its logits are wanted."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for idx, (id, position, sequence, wanted) in enumerate(rows):
            batch.token[idx] = id
            batch.pos[idx] = position
            batch.n_seq_id[idx] = 1
            batch.seq_id[idx][0] = sequence
            batch.logits[idx] = wanted
        if llama_cpp.llama_decode(self.handle, batch) != 0:
            raise RuntimeError("llama.cpp could not decode a batch")

    def logits(self, row_idx: int) -> np.ndarray:
        """fp32 (vocab,); valid until the next step."""
        row = llama_cpp.llama_get_logits_ith(self.handle, row_idx)
        return np.ctypeslib.as_array(row, shape=(self._vocab_size,))

    def argmax(self, row_idx: int) -> int:
        return int(self.logits(row_idx).argmax())


def main(n_threads: int) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine = Engine(n_threads)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"answer": getattr(engine, asked.pop("do"))(**asked)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
    engine.unload()


if __name__ == "__main__":
    main(int(sys.argv[1]))
