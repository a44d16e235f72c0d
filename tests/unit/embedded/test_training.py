"""The trained model is the model that is served, and a training that was cut off is the training that was not."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest
import torch
from embedded.batches import BatchStream, collate
from embedded.mixtral import initialise, losses, parameter_shapes
from embedded.optimiser import orthogonalise
from embedded.release import ARGS as SHIPPED_ARGS
from embedded.release import NAME, canonical_tensors, write_releases
from embedded.rendering import Rendered, Renderer
from embedded.training import Report, TrainingConfig, load_parameters, train

from node.model import KVCache, Numerics, SpanModel
from swarm.embedded import release_folder
from swarm.release import ModelArgs
from swarm.terms import Span

ARGS = ModelArgs(
    architecture="mixtral",
    dim=48,
    n_layers=2,
    n_heads=3,
    n_kv_heads=1,
    head_dim=16,
    hidden_dim=40,
    vocab_size=2048,
    norm_eps=1e-5,
    rope_theta=1e4,
    n_experts=8,
    n_experts_per_tok=2,
    max_positions=512,
)
CONFIG = TrainingConfig(n_first_steps=4, n_focus_steps=2, rows_per_part=1024, checkpoint_every=100)
TOKENIZER = release_folder() / "tekken.json"


def drawn_parameters() -> dict[str, torch.Tensor]:
    parameters = {name: torch.empty(shape) for name, shape in parameter_shapes(ARGS).items()}
    initialise(ARGS, parameters, 3)
    for name in parameters:
        if name.endswith("gate"):
            parameters[name] *= 40  # a router that decides clearly
    return parameters


def served_model(parameters: dict[str, torch.Tensor]) -> SpanModel:
    tensors = dict(canonical_tensors(ARGS, parameters))
    model = SpanModel(ARGS, Span(0, ARGS.n_layers), Numerics(torch.float32))
    model.load_embeddings(tensors["tok_embeddings.weight"])
    model.load_head(tensors["norm.weight"], tensors["output.weight"])
    for n in range(ARGS.n_layers):
        stem = f"layers.{n}."
        model.load_layer(n, {name.removeprefix(stem): t for name, t in tensors.items() if name.startswith(stem)})
    return model


def test_the_loss_is_that_of_the_model_that_is_served() -> None:
    """Documents of several lengths side by side, padded, sorted by expert: as if each stood alone in a stage."""
    parameters = drawn_parameters()
    stream = BatchStream(Renderer(TOKENIZER), 0, 700)
    batch = stream.batch(0, 0)
    with torch.no_grad():
        trained = losses(ARGS, parameters, batch)
    model = served_model(parameters)
    nats, n_learned = 0.0, 0
    for group in batch.groups:
        for i in range(group.n_documents):
            rows = slice(group.start + i * group.length, group.start + (i + 1) * group.length)
            real = int(batch.is_real[rows].sum())
            ids, targets = batch.ids[rows][:real], batch.targets[rows][:real]
            cache = KVCache(ARGS, model.span, max_positions=real, dtype=torch.float32, device="cpu")
            logits = model.logits(model.forward(model.embed(ids), cache, 0))
            learned = targets >= 0
            logprobs = logits.log_softmax(-1)[learned].gather(1, targets[learned, None])
            nats, n_learned = nats - float(logprobs.sum()), n_learned + int(learned.sum())
    assert n_learned > 50
    assert float(trained.cross_entropy) == pytest.approx(nats / n_learned, abs=2e-5)


def test_collated_documents_keep_every_id_and_target() -> None:
    documents = [Rendered(list(range(5, 5 + n)), [i % 3 == 0 for i in range(n)]) for n in (9, 4, 30, 8, 5, 31)]
    batch = collate(documents)
    found = []
    for group in batch.groups:
        for i in range(group.n_documents):
            rows = slice(group.start + i * group.length, group.start + (i + 1) * group.length)
            real = int(batch.is_real[rows].sum())
            found.append((batch.ids[rows][:real].tolist(), batch.targets[rows][:real].tolist()))
            assert (batch.targets[rows][real:] == -1).all()
    expected = [
        (d.ids[:-1], [t if learned else -1 for t, learned in zip(d.ids[1:], d.learned[1:], strict=True)])
        for d in documents
    ]
    assert sorted(found) == sorted(expected)
    assert batch.ids.shape[0] % 128 == 0


def test_a_batch_depends_on_nothing_but_its_place() -> None:
    streams = [BatchStream(Renderer(TOKENIZER), 5, 512) for _ in range(2)]
    streams[0].batch(0, 0)
    assert torch.equal(streams[0].batch(9, 1).ids, streams[1].batch(9, 1).ids)
    assert not torch.equal(streams[0].batch(9, 0).ids[:200], streams[0].batch(9, 1).ids[:200])


def run(checkpoint: Path, config: TrainingConfig, n_workers: int, stop_after: int | None = None) -> list[Report]:
    reports: list[Report] = []
    stop = threading.Event()

    def report(step: Report) -> None:
        reports.append(step)
        if stop_after is not None and step.step_idx + 1 >= stop_after:
            stop.set()

    assert train(ARGS, config, TOKENIZER, checkpoint, n_workers, report, stop) == (stop_after is None)
    return reports


@pytest.mark.timeout(300)
def test_training_goes_on_where_it_was_stopped_with_any_number_of_workers(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", CONFIG, n_workers=1)
    assert [step.step_idx for step in whole] == list(range(6))
    assert whole[-1].cross_entropy < whole[0].cross_entropy
    first = run(tmp_path / "cut", CONFIG, n_workers=2, stop_after=3)
    rest = run(tmp_path / "cut", CONFIG, n_workers=1)
    assert [step.step_idx for step in first + rest] == list(range(6))
    assert [step.cross_entropy for step in first + rest] == [step.cross_entropy for step in whole]
    expected, found = load_parameters(ARGS, tmp_path / "whole"), load_parameters(ARGS, tmp_path / "cut")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    with pytest.raises(ValueError, match="other settings"):
        run(tmp_path / "cut", dataclasses.replace(CONFIG, seed=1), n_workers=1)


def test_the_schedule_goes_up_stays_and_comes_down_twice() -> None:
    config = TrainingConfig(n_first_steps=1000, n_focus_steps=200)
    values = [config.schedule(step_idx) for step_idx in range(config.n_steps)]
    top = values.index(1.0)
    assert values[:top] == sorted(values[:top])
    assert values[top:1000] == sorted(values[top:1000], reverse=True)
    assert values[1000] == config.focus_rate
    assert values[1000:] == sorted(values[1000:], reverse=True)
    assert 0 < values[999] <= 0.01 and 0 < values[-1] <= 0.01
    assert [config.is_focused(step_idx) for step_idx in (999, 1000)] == [False, True]


def test_muons_updates_are_nearly_orthogonal() -> None:
    matrices = torch.randn(3, 40, 96, generator=torch.Generator().manual_seed(0))
    singular = torch.linalg.svdvals(orthogonalise(matrices))
    assert singular.min() > 0.6
    assert singular.max() < 1.3
    assert torch.allclose(orthogonalise(matrices.transpose(1, 2)), orthogonalise(matrices).transpose(1, 2), atol=0.05)


def test_both_layouts_are_the_trained_model(tmp_path: Path) -> None:
    """HF's files as transformers reads them, Mistral's as we do: the same logits."""
    from benchmarks.one_process import load_model
    from transformers import MixtralForCausalLM

    parameters = {name: torch.empty(shape) for name, shape in parameter_shapes(SHIPPED_ARGS).items()}
    initialise(SHIPPED_ARGS, parameters, 1)
    write_releases(parameters, TOKENIZER, {"README.md": "x"}, tmp_path)
    ids = torch.arange(40, 90)
    with torch.inference_mode():
        expected = MixtralForCausalLM.from_pretrained(tmp_path / "hf" / NAME, dtype=torch.float32)(ids[None]).logits[0]
    for layout in ("hf", "mistral"):
        model = load_model(tmp_path / layout / NAME, "fp32")
        cache = KVCache(model.args, model.span, max_positions=50, dtype=torch.float32, device="cpu")
        assert torch.allclose(model.logits(model.forward(model.embed(ids), cache, 0)), expected, atol=1e-4)
