"""What the tests of a stage compute on: spans of small releases, loaded in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from node.model import Numerics, SpanModel
from node.weights import load_tensors
from swarm.release import read_folder_layout
from swarm.terms import Span

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def load_span() -> Callable[..., SpanModel]:
    """load_span(folder, span, numerics=fp32) -> its layers, and embeddings and head where the span has them."""
    return load


def load(folder: Path, span: Span, numerics: Numerics = Numerics(torch.float32)) -> SpanModel:  # noqa: B008  frozen
    layout = read_folder_layout(folder)
    model = SpanModel(layout.args, span, numerics, device=CPU)
    for layer_idx in span:
        tensors = load_tensors(layout.layer_tensors(layer_idx), folder, dtype=torch.float32, device=CPU)
        model.load_layer(layer_idx, {n.removeprefix(f"layers.{layer_idx}."): t for n, t in tensors.items()})
    if span.start == 0:
        model.load_embeddings(
            next(iter(load_tensors(layout.embedding_tensors(), folder, dtype=torch.float32).values()))
        )
    if span.end == layout.args.n_layers:
        head = load_tensors(layout.head_tensors(), folder, dtype=torch.float32)
        model.load_head(head.pop("norm.weight"), next(iter(head.values())))
    return model
