"""ModelArgs: the numbers that fix a model's function and every tensor's shape. Knows no file and no framework."""

from __future__ import annotations

import math
from dataclasses import dataclass

from swarm.errors import CorruptRelease

ARCHITECTURES = ("mistral", "mixtral")
ROPE_LAYOUTS = ("interleaved", "halves")
STORED_DTYPES = {"bf16": 2, "fp16": 2, "fp32": 4}
"""Bytes per value of each dtype that weights may be stored in."""

MAX_TENSORS = 40_000
"""More tensors than any release that we run (8x22B has 1,739, and Large 3, not run yet, about 24,000): what declares
more is refused before it is built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArgs:
    """What one model is, in Mistral's own vocabulary; the same for each format that its weights come in.

    n_experts, n_experts_per_tok: 0 for a dense model. windows: per layer, how many positions a query sees, itself
    included (None: all); left empty it means full attention in every layer. max_positions: the context length.
    rope_layout: how wq and wk are stored: 'interleaved' pairs (2i, 2i+1) in Mistral's files, 'halves' in HF's.
    stored_dtype: the dtype of the weights' bytes, not of the computation.
    Raises: CorruptRelease when the numbers contradict each other.
    """

    architecture: str  # 'mistral' | 'mixtral'
    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    hidden_dim: int
    vocab_size: int
    norm_eps: float
    rope_theta: float
    n_experts: int = 0
    n_experts_per_tok: int = 0
    tied_embeddings: bool = False
    windows: tuple[int | None, ...] = ()
    max_positions: int = 32768
    rope_layout: str = "interleaved"
    stored_dtype: str = "bf16"

    def __post_init__(self) -> None:
        for name, high in _HIGHEST.items():
            _require(1 <= getattr(self, name) <= high, f"{name} is {getattr(self, name)!r}, not within 1..{high}")
        _require(
            self.architecture in ARCHITECTURES, f"architecture {self.architecture!r} is not one of {ARCHITECTURES}"
        )
        _require(self.rope_layout in ROPE_LAYOUTS, f"rope_layout {self.rope_layout!r} is not one of {ROPE_LAYOUTS}")
        _require(self.stored_dtype in STORED_DTYPES, f"stored_dtype {self.stored_dtype!r} is unknown")
        _require(self.n_heads % self.n_kv_heads == 0, f"{self.n_heads} heads do not share {self.n_kv_heads} kv heads")
        _require(self.head_dim % 2 == 0, f"head_dim {self.head_dim} is odd, and rotary pairs need an even one")
        _require(0 < self.norm_eps < 1, f"norm_eps is {self.norm_eps}")
        _require(math.isfinite(self.rope_theta) and self.rope_theta > 0, f"rope_theta is {self.rope_theta}")
        self._check_experts()
        if not self.windows:
            object.__setattr__(self, "windows", (None,) * self.n_layers)
        _require(len(self.windows) == self.n_layers, f"{len(self.windows)} windows for {self.n_layers} layers")
        _require(all(w is None or w >= 1 for w in self.windows), "a sliding window is shorter than 1")

    def _check_experts(self) -> None:
        if self.architecture == "mistral":
            _require(self.n_experts == 0 == self.n_experts_per_tok, "a dense model declares experts")
            return
        _require(1 <= self.n_experts <= 4096, f"a mixtral model declares {self.n_experts} experts")
        _require(
            1 <= self.n_experts_per_tok <= self.n_experts,
            f"{self.n_experts_per_tok} experts per token of {self.n_experts}",
        )
        n_tensors = self.n_layers * (7 + 3 * self.n_experts)
        _require(n_tensors < MAX_TENSORS, f"{self.n_layers} layers of {self.n_experts} experts are {n_tensors} tensors")

    @property
    def is_moe(self) -> bool:
        return self.n_experts > 0

    @property
    def n_expert_params(self) -> int:
        """Of one feed-forward network: one expert's, or a dense layer's only one."""
        return 3 * self.dim * self.hidden_dim

    @property
    def n_trunk_params(self) -> int:
        """Of one layer without its experts: attention, both norms, the router. A dense layer is all trunk."""
        attention = 2 * self.dim * self.head_dim * (self.n_heads + self.n_kv_heads)
        return attention + 2 * self.dim + (self.n_experts * self.dim if self.is_moe else self.n_expert_params)

    @property
    def n_layer_params(self) -> int:
        return self.n_trunk_params + self.n_experts * self.n_expert_params

    @property
    def n_params(self) -> int:
        """Of the whole model; tied embeddings count once."""
        return self._n_outer_params + self.n_layers * self.n_layer_params

    @property
    def n_active_params(self) -> int:
        """Those that take part in one token: all but the experts that its router does not choose."""
        active_layer = self.n_trunk_params + self.n_experts_per_tok * self.n_expert_params
        return self._n_outer_params + self.n_layers * active_layer

    @property
    def _n_outer_params(self) -> int:
        return self.dim + (1 if self.tied_embeddings else 2) * self.vocab_size * self.dim


# Far above every known model, far below what makes a loop over layers or a name table a burden.
_HIGHEST = {
    "dim": 1 << 20,
    "n_layers": 1024,
    "n_heads": 4096,
    "n_kv_heads": 4096,
    "head_dim": 4096,
    "hidden_dim": 1 << 22,
    "vocab_size": 1 << 22,
    "max_positions": 1 << 30,
}


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise CorruptRelease(f"the model's config contradicts itself: {message}; fetch the release again or fix it")
