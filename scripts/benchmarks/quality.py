"""quality: what fewer bits cost the embedded release, on documents that it never saw.

Perplexity per learned token, and how many questions are answered exactly, greedily; the same code as nodes run, all in
this process. The peer is fp32. A round more is a document more of each kind.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from embedded.corpus import KINDS, Document, held_out_documents
from embedded.engines import MAX_NEW_TOKENS, Answers
from embedded.questions import SEED, Question, held_out_questions, is_exact
from embedded.rendering import EOS, Renderer

from benchmarks.figures import Figure
from benchmarks.one_process import OneProcess
from node.model import KVCache, SpanModel
from swarm.embedded import release_folder
from swarm.terms import Profile

BENCH = "quality"
DEFAULT_ROUNDS = 20
REFERENCE = "fp32"
PROFILES = tuple(map(Profile.parse, (REFERENCE, "bf16", "bf16-int8", "bf16-int4")))
N_CONCURRENT = 32


@dataclass(frozen=True, slots=True)
class Quality:
    perplexity: float
    n_exact: int
    answers: Answers


def run(work_dir: Path, n_rounds: int) -> list[Figure]:
    renderer = Renderer(release_folder() / "tekken.json")
    questions = held_out_questions(renderer, n_rounds)
    documents = [document for kind in KINDS for document in held_out_documents(kind, SEED, n_rounds)]
    measured = {str(profile): measure(profile, documents, questions, renderer) for profile in PROFILES}
    return [figure for name in measured for figure in figures_of(name, measured, len(questions))]


def measure(
    profile: Profile, documents: Sequence[Document], questions: Sequence[Question], renderer: Renderer
) -> Quality:
    engine = OneProcess(release_folder(), profile.dtype, profile.quantisation)
    try:
        perplexity = perplexity_of(engine.model, documents, renderer)
        answers = asyncio.run(_answer(engine, questions))
    finally:
        engine.close()
    n_exact = sum(is_exact(question, ids, renderer) for question, ids in zip(questions, answers, strict=True))
    return Quality(perplexity, n_exact, answers)


@torch.inference_mode()
def perplexity_of(model: SpanModel, documents: Sequence[Document], renderer: Renderer) -> float:
    """Per learned token, each document on its own."""
    nats, n_tokens = 0.0, 0
    for document in documents:
        rendered = renderer.render(document)
        ids, learned = torch.tensor(rendered.ids), torch.tensor(rendered.learned[1:])
        cache = KVCache(model.args, model.span, dtype=model.dtype, device=model.device)
        logits = model.logits(model.forward(model.embed(ids[:-1]), cache, 0))
        logprobs = logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        nats -= float(logprobs[learned].sum())
        n_tokens += int(learned.sum())
    return math.exp(nats / n_tokens)


async def _answer(engine: OneProcess, questions: Sequence[Question]) -> Answers:
    slots = asyncio.Semaphore(N_CONCURRENT)

    async def answer(question: Question) -> tuple[int, ...]:
        ids: list[int] = []
        async with slots:
            async for token_id in engine.generate(list(question.prompt), MAX_NEW_TOKENS):
                ids.append(token_id)
                if token_id == EOS:
                    break
        return tuple(ids)

    return list(await asyncio.gather(*(answer(question) for question in questions)))


def figures_of(name: str, measured: Mapping[str, Quality], n_questions: int) -> list[Figure]:
    ours, reference = measured[name], measured[REFERENCE]
    exact, reference_exact = ours.n_exact / n_questions, reference.n_exact / n_questions
    same = sum(a == b for a, b in zip(ours.answers, reference.answers, strict=True)) / n_questions
    return [
        Figure(
            BENCH, f"{name}, perplexity", ours.perplexity, "", REFERENCE, reference.perplexity,
            reference.perplexity / ours.perplexity,
        ),
        Figure(
            BENCH, f"{name}, loss", 1e3 * math.log(ours.perplexity), "mnat/token", REFERENCE,
            1e3 * math.log(reference.perplexity), math.log(reference.perplexity) / math.log(ours.perplexity),
        ),
        Figure(
            BENCH, f"{name}, {n_questions} questions answered exactly", exact, "", REFERENCE, reference_exact,
            exact / reference_exact,
        ),
        Figure(BENCH, f"{name}, the same ids as {REFERENCE}", same, ""),
    ]  # fmt: skip
