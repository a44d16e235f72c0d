"""The layer that transformers races with is the layer that its whole model runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from benchmarks.models import layer_tensors, write_model
from benchmarks.transformers_batch import TransformersBatch, TransformersLayer

from node.weights import PRESETS


def test_the_layer_alone_is_the_models_first(tmp_path: Path) -> None:
    args = replace(PRESETS["tiny-mixtral"].args, n_layers=1, windows=(None,))
    write_model(args, tmp_path / "model", n_shards=1)
    model = TransformersBatch(tmp_path / "model", "bf16")._model.model
    layer = TransformersLayer(args, layer_tensors(args), n_cached=0)
    hidden: list[torch.Tensor] = []
    model.layers[0].register_forward_hook(lambda module, given, h: hidden.extend((given[0], h)))
    with torch.inference_mode():
        model(torch.tensor([[7]]), use_cache=False)
    assert torch.allclose(layer.forward(hidden[0]), hidden[1], atol=2e-2)
    assert not torch.allclose(hidden[0], hidden[1], atol=2e-2)
