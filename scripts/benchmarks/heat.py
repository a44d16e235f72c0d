"""heat: what the measured routing of the embedded release is worth to a node that can keep only some of its experts.

A node has the trunk and a budget of experts; the others are elsewhere. The heat is measured over one half of the
held-out questions, the calls are counted over the other half: all kinds of questions together, and each kind by itself,
as a node whose users ask for one thing would see it. The peer keeps as many experts, by turns over layers and indices.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import torch
from embedded.questions import Question, held_out_questions
from embedded.rendering import Renderer
from torch import Tensor

from benchmarks.figures import Figure
from benchmarks.one_process import load_model
from node.hosting import load_part
from node.model import Answers, ExpertStore, KVCache, Numerics, SpanModel
from node.placement import choose_experts
from swarm.embedded import release_folder
from swarm.release import read_folder_layout
from swarm.terms import ExpertId, Span

BENCH = "heat"
PEER = "by turns"
N_PER_KIND = 12
BUDGETS = (12, 24, 36)
DEFAULT_ROUNDS = 1


class _Elsewhere:
    """Answers at once, and counts: rows of experts, and layers at which a row needed any."""

    def __init__(self, store: ExpertStore) -> None:
        self._store = store
        self.n_experts = 0
        self.n_layers = 0

    def apply(self, layer_idx: int, x: Tensor, wanted: Mapping[int, Sequence[int]]) -> Future[Answers]:
        self.n_experts += sum(map(len, wanted.values()))
        self.n_layers += len({row_idx for rows in wanted.values() for row_idx in rows})
        future: Future[Answers] = Future()
        experts = self._store.of_layer(layer_idx)
        future.set_result({expert_idx: experts[expert_idx](x[list(rows)]) for expert_idx, rows in wanted.items()})
        return future


def run(work_dir: Path, n_rounds: int) -> list[Figure]:
    torch.set_num_threads(1)
    folder = release_folder()
    questions = held_out_questions(Renderer(folder / "tekken.json"), N_PER_KIND)
    kinds = sorted({question.kind for question in questions})
    whole = load_model(folder, "fp32")
    figures = []
    for budget in BUDGETS:
        figures += _figures(folder, whole, questions, budget, "all kinds")
        by_kind = [_calls_per_token(folder, whole, [q for q in questions if q.kind == kind], budget) for kind in kinds]
        figures += _compared(
            budget, "one kind alone, median", [statistics.median(v) for v in zip(*by_kind, strict=True)]
        )
    return figures


def _figures(folder: Path, whole: SpanModel, questions: Sequence[Question], budget: int, what: str) -> list[Figure]:
    return _compared(budget, what, _calls_per_token(folder, whole, questions, budget))


def _compared(budget: int, what: str, calls: Sequence[float]) -> list[Figure]:
    experts, experts_by_turns, layers, layers_by_turns = calls
    case = f"{budget} of 48 experts here, {what}"
    return [
        Figure(BENCH, case, experts, "remote experts/token", PEER, experts_by_turns, experts_by_turns / experts),
        Figure(BENCH, case, layers, "remote layers/token", PEER, layers_by_turns, layers_by_turns / layers),
    ]


def _calls_per_token(
    folder: Path, whole: SpanModel, questions: Sequence[Question], budget: int
) -> tuple[float, float, float, float]:
    """Experts and layers by heat and by turns: (experts, experts by turns, layers, layers by turns)."""
    args = whole.args
    every = [ExpertId(layer_idx, idx) for layer_idx in range(args.n_layers) for idx in range(args.n_experts)]
    heat = _measured_heat(folder, whole, questions[::2])
    warm = choose_experts(heat, {}, budget, all_experts=every, near=range(args.n_layers))
    turns = [every[i * len(every) // budget] for i in range(budget)]
    ours, theirs = (_count(folder, whole, kept, questions[1::2]) for kept in (warm, turns))
    return ours[0], theirs[0], ours[1], theirs[1]


def _measured_heat(folder: Path, whole: SpanModel, questions: Sequence[Question]) -> dict[ExpertId, float]:
    """As a node would measure it."""
    model, _ = _trunk(folder, whole, [])
    for question in questions:
        _pass(model, question)
    shares = model.experts.heat.shares()
    return {ExpertId(layer_idx, i): share for layer_idx, of_layer in shares.items() for i, share in enumerate(of_layer)}


def _count(
    folder: Path, whole: SpanModel, kept: Sequence[ExpertId], questions: Sequence[Question]
) -> tuple[float, float]:
    """Remote experts and layers per token."""
    model, elsewhere = _trunk(folder, whole, kept)
    n_tokens = sum(_pass(model, question) for question in questions)
    return elsewhere.n_experts / n_tokens, elsewhere.n_layers / n_tokens


def _pass(model: SpanModel, question: Question) -> int:
    """All of a question's prompt -> its number of tokens."""
    ids = torch.tensor(question.prompt)
    cache = KVCache(model.args, model.span, dtype=model.dtype, device="cpu")
    model.forward(model.embed(ids), cache, 0)
    return len(ids)


def _trunk(folder: Path, whole: SpanModel, kept: Sequence[ExpertId]) -> tuple[SpanModel, _Elsewhere]:
    """The trunk of the whole model with these experts; the others are the whole one's."""
    layout = read_folder_layout(folder)
    elsewhere = _Elsewhere(whole.experts)
    span = Span(0, layout.args.n_layers)
    model = SpanModel(layout.args, span, Numerics(torch.float32), trunks=(span,), elsewhere=elsewhere)
    for part in ("embeddings", *span, *kept):
        load_part(part, layout, {span: model}, folder, model.experts)
    return model, elsewhere
