"""llama.cpp on the same weights: a child process in .venv/peers that holds a GGUF of the release.

Optional: `scripts/bench NAME --llama-cpp` builds it. What it computes is proved before it is timed (see prove).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from benchmarks.fastest import fastest
from benchmarks.models import prompts_of
from swarm.errors import SwarmError
from swarm.release import read_folder_layout

NAME = "llama.cpp"
_ROOT = Path(__file__).parents[2]
_PYTHON = _ROOT / ".venv" / "peers" / "bin" / "python"
_INSTALLED = _ROOT / ".venv" / "peers" / "installed"
_EMBEDDED = _ROOT / "swarm" / "embedded" / "pip-12m"
_WAYS = {"flash attention": True, "plain attention": False}
N_TRIED_TOKENS = 3
N_PROVED_TOKENS = 64
LEAST_COSINE = 0.999
LEAST_AGREEMENT = 0.98
END_TIMEOUT_S = 10.0


class PeerFailed(SwarmError):
    """The child said so, or ended."""


def why_absent() -> str | None:
    """A line that says how to get llama.cpp, or None where it is there."""
    if _INSTALLED.is_file():
        return None
    return (
        "llama.cpp is not in .venv/peers, so its figures are left out; add --llama-cpp to build it there "
        "(needs cmake, a C++ compiler and about 5 minutes)"
    )


class LlamaCpp:
    """A context manager: the child has ended, and its files are gone, when it is left.

    quantization: None for the release's own dtype; 'q8_0' or 'q4_0'; 'fp32' for exact comparisons. Quantised weights
    are not repacked for the CPU: on one with AMX, 0.3.36 ends in a segmentation fault with them. So its quantised
    figures may be below what it reaches elsewhere.
    """

    def __init__(self, folder: Path, work_dir: Path, quantization: str | None = None, n_threads: int = 1) -> None:
        self.vocab_size = read_folder_layout(folder).args.vocab_size
        self.ways: dict[str, str] = {}  # by shape, the attention it runs with
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the child)
        self._child = subprocess.Popen(
            [_PYTHON, "-m", "benchmarks.llama_cpp_child", str(n_threads)],
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": f"{_ROOT / 'scripts'}{os.pathsep}{_ROOT}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )
        self._files = tempfile.TemporaryDirectory(prefix="gguf-", dir=work_dir)
        try:
            self.size_bytes = self._load(folder, quantization)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child, by closing its stdin first, and remove its files."""
        assert self._child.stdin is not None and self._child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it died with a question unread
            self._child.stdin.close()
        try:
            self._child.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()
        self._said.close()
        self._files.cleanup()

    async def decode(self, prompts: list[list[int]], n_tokens: int) -> float:
        """Tokens/s of all sequences together, greedily on from the prompts, which are not timed."""
        shape = f"decode {len(prompts)} x {len(prompts[0])}"
        if shape not in self.ways:
            self.ways[shape] = fastest({way: partial(self._rate, prompts, N_TRIED_TOKENS, way) for way in _WAYS}, 1)
        return self._rate(prompts, n_tokens, self.ways[shape])

    def tokens(self, prompts: list[list[int]], n_tokens: int) -> list[list[int]]:
        """The greedy ids behind each prompt."""
        return [ids[:n_tokens] for ids in self._decode(prompts, n_tokens, "plain attention")["ids"]]

    async def prefill(self, prompt: list[int]) -> float:
        """Prompt tokens/s, to the last token's logits."""
        shape = f"prefill {len(prompt)}"
        if shape not in self.ways:
            self.ways[shape] = fastest({way: partial(self._prefill, prompt, way) for way in _WAYS}, 1)
        return self._prefill(prompt, self.ways[shape])

    def logits(self, prompt: list[int]) -> torch.Tensor:
        """fp32 (T, vocab)."""
        raw = base64.b64decode(self._ask("logits", ids=prompt))
        return torch.from_numpy(np.frombuffer(raw, "<f4").reshape(len(prompt), self.vocab_size).copy())

    def _load(self, folder: Path, quantization: str | None) -> int:
        path = f"{self._files.name}/model.gguf"
        self._ask("convert", folder=str(folder.resolve()), path=path, all_fp32=quantization == "fp32")
        if quantization not in (None, "fp32"):
            quantized = f"{self._files.name}/{quantization}.gguf"
            self._ask("quantize", path=path, to=quantized, quantization=quantization)
            Path(path).unlink()
            path = quantized
        return int(self._ask("load", path=path, repacked=quantization is None))

    def _decode(self, prompts: list[list[int]], n_tokens: int, way: str) -> dict[str, Any]:
        answer = self._ask("decode", prompts=prompts, n_tokens=n_tokens, flash=_WAYS[way])
        assert isinstance(answer, dict)
        return answer

    def _rate(self, prompts: list[list[int]], n_tokens: int, way: str) -> float:
        return float(self._decode(prompts, n_tokens, way)["tokens_per_s"])

    def _prefill(self, prompt: list[int], way: str) -> float:
        return float(self._ask("prefill", prompt=prompt, flash=_WAYS[way]))

    def _ask(self, what: str, **arguments: object) -> Any:
        """Raises: PeerFailed."""
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            self._child.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
            self._child.stdin.flush()
            line = self._child.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            self._said.seek(0)
            said = self._said.read()[-2000:].decode(errors="replace")
            raise PeerFailed(f"llama.cpp's process ended while it was asked to {what}; its last words: {said}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerFailed(f"llama.cpp failed at {what}: {answer['error']}")
        return answer["answer"]


def prove(work_dir: Path) -> tuple[float, float]:
    """Hold llama.cpp to transformers on the embedded release, both in fp32 -> least cosine of their logits, share of
    positions with the same top choice. It goes through the conversion that every release here goes through.

    Raises: PeerFailed when they compute different functions.
    """
    from benchmarks.transformers_batch import TransformersBatch

    with LlamaCpp(_EMBEDDED, work_dir, "fp32") as ours:
        prompt = prompts_of(1, N_PROVED_TOKENS, ours.vocab_size)[0]
        theirs = TransformersBatch(_EMBEDDED, "fp32").logits(prompt)
        logits = ours.logits(prompt)
    cosine = torch.cosine_similarity(logits, theirs, dim=-1).min().item()
    agreement = (logits.argmax(-1) == theirs.argmax(-1)).float().mean().item()
    if cosine < LEAST_COSINE or agreement < LEAST_AGREEMENT:
        raise PeerFailed(f"llama.cpp computes something else: cosine {cosine:.4f}, same top choice {agreement:.2f}")
    return cosine, agreement
