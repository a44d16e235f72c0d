"""transformers is the oracle: the same release, loaded by from_pretrained, gives the same logits and tokens."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from node.model import KVCache, Numerics, SpanModel
from node.weights import PRESETS, load_tensors, write_preset
from swarm.release import read_folder_layout
from swarm.terms import Span

transformers = pytest.importorskip("transformers")

N_TOKENS = 64
FORMATS = ["hf", "mistral", "mistral-pth"]
TINY = ["tiny-mistral", "tiny-mixtral", "odd-mixtral"]


@dataclass(frozen=True)
class Oracle:
    """One preset in HF's format, and what transformers says of it in fp32."""

    preset: str
    folder: Path
    model: Any
    prompt: Tensor  # (T,)
    logits: Tensor  # (T, V)
    tokens: list[int]  # the next N_TOKENS, greedily


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module", params=list(PRESETS))
def oracle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    folder = tmp_path_factory.mktemp(request.param)
    write_preset(request.param, folder, dtype="fp32")
    model = _from_pretrained(folder, torch.float32)
    vocab_size = PRESETS[request.param].args.vocab_size
    prompt = torch.randint(0, vocab_size, (70,), generator=torch.Generator().manual_seed(11))
    tokens: list[int] = []
    with torch.inference_mode():
        answer = model(prompt[None], use_cache=True)
        logits = answer.logits[0]
        while len(tokens) < N_TOKENS:
            tokens.append(int(answer.logits[0, -1].argmax()))
            answer = model(torch.tensor([tokens[-1:]]), past_key_values=answer.past_key_values, use_cache=True)
    return Oracle(request.param, folder, model, prompt, logits, tokens)


def _from_pretrained(folder: Path, dtype: torch.dtype) -> Any:
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    return model.eval()


def _load(folder: Path, span: Span, dtype: torch.dtype = torch.float32) -> SpanModel:
    """What a node does with a verified folder: layout, byte ranges, tensors, span."""
    layout = read_folder_layout(folder)
    model = SpanModel(layout.args, span, Numerics(dtype))
    for layer_idx in span:
        tensors = load_tensors(layout.layer_tensors(layer_idx), folder, dtype=dtype)
        prefix = f"layers.{layer_idx}."
        model.load_layer(layer_idx, {name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
    if span.start == 0:
        model.load_embeddings(*load_tensors(layout.embedding_tensors(), folder, dtype=dtype).values())
    if span.end == layout.args.n_layers:
        head = load_tensors(layout.head_tensors(), folder, dtype=dtype)
        model.load_head(head.pop("norm.weight"), *head.values())
    return model


def _cut(n_layers: int, n_spans: int) -> list[Span]:
    bounds = [n_layers * i // n_spans for i in range(n_spans + 1)]
    return [Span(a, b) for a, b in itertools.pairwise(bounds)]


class Chain:
    """Spans one after another, as the stages of a route run them."""

    def __init__(self, models: list[SpanModel]) -> None:
        self.models = models
        self.caches = [KVCache(m.args, m.span, dtype=m.dtype, device=m.device) for m in models]

    def step(self, ids: Tensor) -> Tensor:
        h = self.models[0].embed(ids)
        for model, cache in zip(self.models, self.caches, strict=True):
            h = model.forward(h, cache, cache.length)
        return self.models[-1].logits(h)

    def greedy(self, prompt: Tensor) -> list[int]:
        tokens: list[int] = []
        logits = self.step(prompt)
        while len(tokens) < N_TOKENS:
            tokens.append(int(logits[-1].argmax()))
            logits = self.step(torch.tensor(tokens[-1:]))
        return tokens


def test_logits_and_greedy_tokens_are_those_of_transformers(oracle: Oracle, tmp_path: Path) -> None:
    layers = Span(0, PRESETS[oracle.preset].args.n_layers)
    for format in FORMATS if oracle.preset in TINY else FORMATS[::2]:
        folder = oracle.folder
        if format != "hf":
            folder = tmp_path / format
            write_preset(oracle.preset, folder, format=format, dtype="fp32")
        whole = _load(folder, layers)
        logits = Chain([whole]).step(oracle.prompt)
        worst = (logits - oracle.logits).abs().max().item()
        print(f"\n{oracle.preset} {format}: max |dlogit| {worst:.1e} of sigma {oracle.logits.std():.1f}")
        assert worst < 1e-4
        assert Chain([whole]).greedy(oracle.prompt) == oracle.tokens


def test_the_same_over_several_nodes(oracle: Oracle) -> None:
    for n_spans in (2, 3) if oracle.preset in TINY else (3,):
        spans = _cut(PRESETS[oracle.preset].args.n_layers, n_spans)
        models = [_load(oracle.folder, span) for span in spans]
        assert (Chain(models).step(oracle.prompt) - oracle.logits).abs().max() < 1e-4
        assert Chain(models).greedy(oracle.prompt) == oracle.tokens


@pytest.mark.parametrize("preset", ["tiny-mistral", "tiny-mixtral"])
def test_bf16_is_as_near_to_fp32_as_transformers_bf16_is(preset: str, tmp_path: Path) -> None:
    """bf16 rounding differs between implementations: compare both with fp32 on the same bf16 weights."""
    write_preset(preset, tmp_path, dtype="bf16")
    args = PRESETS[preset].args
    prompt = torch.randint(0, args.vocab_size, (128,), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        exact = _from_pretrained(tmp_path, torch.float32)(prompt[None]).logits[0]
        theirs = _from_pretrained(tmp_path, torch.bfloat16)(prompt[None]).logits[0].float()
    ours = Chain([_load(tmp_path, Span(0, args.n_layers), torch.bfloat16)]).step(prompt)
    errors = {"ours": (ours - exact).abs().median().item(), "theirs": (theirs - exact).abs().median().item()}
    agreement = (ours.argmax(-1) == theirs.argmax(-1)).float().mean().item()
    print(f"\n{preset} bf16: median |dlogit| from fp32 {errors}, argmax as transformers' bf16: {agreement:.0%}")
    assert errors["ours"] < 1.1 * errors["theirs"]
    assert agreement > 0.85
