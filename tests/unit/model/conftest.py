"""Small models with random weights, built in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from node.model import KVCache, Numerics, SpanModel
from node.weights import PRESETS
from node.weights.synthetic import random_tensors
from swarm.release import ModelArgs
from swarm.terms import Span


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def load_span(
    args: ModelArgs, tensors: dict[str, Tensor], span: Span | None = None, dtype: torch.dtype = torch.float32
) -> SpanModel:
    """A SpanModel over span (default: all layers) with both ends loaded."""
    model = SpanModel(args, span or Span(0, args.n_layers), Numerics(dtype))
    for layer_idx in model.span:
        prefix = f"layers.{layer_idx}."
        layer = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        model.load_layer(layer_idx, layer)
    model.load_embeddings(tensors["tok_embeddings.weight"])
    model.load_head(
        tensors["norm.weight"], tensors["tok_embeddings.weight" if args.tied_embeddings else "output.weight"]
    )
    return model


@pytest.fixture(scope="session")
def span_model() -> Callable[..., SpanModel]:
    """span_model(preset, span=None, dtype=fp32, **changed_args)."""

    def build(
        preset: str, span: Span | None = None, dtype: torch.dtype = torch.float32, **changed: object
    ) -> SpanModel:
        args = dataclasses.replace(PRESETS[preset].args, **changed)  # type: ignore[arg-type]
        return load_span(args, dict(random_tensors(args, seed=7)), span, dtype)

    return build


@pytest.fixture(scope="session")
def new_cache() -> Callable[..., KVCache]:
    """new_cache(model, span=None, max_positions=None)."""

    def build(model: SpanModel, span: Span | None = None, max_positions: int | None = None) -> KVCache:
        return KVCache(
            model.args, span or model.span, dtype=model.dtype, device=model.device, max_positions=max_positions
        )

    return build


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(0, 300, (800,), generator=torch.Generator().manual_seed(3))
