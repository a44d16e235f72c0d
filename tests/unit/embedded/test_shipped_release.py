"""The release that ships: what is in it, and that it answers what it never saw, in one process and in a swarm alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from embedded.corpus import KINDS
from embedded.engines import answer_by_swarm, answer_in_one_process
from embedded.language import measure_language
from embedded.questions import Question, held_out_questions, is_exact, runs
from embedded.release import ARGS, N_SHARDS
from embedded.rendering import EOS, Renderer

from swarm.embedded import NAME, release_folder
from swarm.release import read_folder_layout

pytestmark = pytest.mark.timeout(600)
"""It answers hundreds of questions one after the other, which beside other work takes minutes."""

FOLDER = release_folder()
MAX_BYTES = 24_000_000
N_PER_KIND = 30

HARD = {"reading": 0.35, "memory": 0.2}
"""The kinds where more than a tenth of the answers are wrong, and how many may be."""


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(FOLDER / "tekken.json")


@pytest.fixture(scope="module")
def questions(renderer: Renderer) -> list[Question]:
    return held_out_questions(renderer, N_PER_KIND)


@pytest.fixture(scope="module")
def answers(questions: list[Question]) -> list[tuple[int, ...]]:
    return answer_in_one_process(FOLDER, [question.prompt for question in questions], lambda n_done: None)


def test_it_is_whole_small_and_says_what_it_is() -> None:
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    shards = {f"model-{i + 1:05d}-of-{N_SHARDS:05d}.safetensors" for i in range(N_SHARDS)}
    texts = {"README.md", "LICENSE", "config.json", "model.safetensors.index.json", "tekken.json"}
    assert files.keys() == shards | texts
    assert N_SHARDS > 1
    assert sum(files.values()) <= MAX_BYTES
    card = (FOLDER / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert FOLDER.name == NAME
    assert (FOLDER / "LICENSE").read_text() == (Path(__file__).parents[3] / "LICENSE").read_text()


def test_it_is_a_true_mixtral_in_bf16() -> None:
    args = read_folder_layout(FOLDER).args
    assert (args.architecture, args.n_experts, args.n_experts_per_tok) == ("mixtral", 8, 2)
    assert args.n_kv_heads < args.n_heads
    assert args.stored_dtype == "bf16"
    assert args.n_params == ARGS.n_params
    assert json.loads((FOLDER / "config.json").read_text())["architectures"] == ["MixtralForCausalLM"]


def test_it_answers_what_it_never_saw(
    questions: list[Question], answers: list[tuple[int, ...]], renderer: Renderer
) -> None:
    """Nine in ten, exactly, in all and of each kind but two; the code that it writes runs and passes its checks.

    Reading wants a lookup against the order of the text ("Who has the boat?"), memory to see that a thing was never
    said: both are harder for so small a model than the rest, and are held to what it reaches.
    """
    wrong: dict[str, list[str]] = {kind: [] for kind in KINDS}
    n_of_kind = dict.fromkeys(KINDS, 0)
    for question, answer in zip(questions, answers, strict=True):
        n_of_kind[question.kind] += 1
        if not is_exact(question, answer, renderer):
            wrong[question.kind].append(f"{question.text!r} -> {renderer.tokenizer.decode(answer)!r}")
    assert sum(map(len, wrong.values())) <= 0.1 * len(questions)
    most = {kind: HARD.get(kind, 0.1) * n_of_kind[kind] for kind in wrong}
    assert {kind: found for kind, found in wrong.items() if len(found) > most[kind]} == {}
    coded = [(q, a) for q, a in zip(questions, answers, strict=True) if q.program is not None]
    assert sum(runs(q, a, renderer) for q, a in coded) >= 0.9 * len(coded) > 0


def test_an_answer_that_is_cut_off_or_differs_is_not_exact(questions: list[Question], renderer: Renderer) -> None:
    for question in questions:
        assert is_exact(question, question.expected, renderer)
        assert not is_exact(question, question.expected[:-1], renderer)
        assert not is_exact(question, (*question.expected[:-1], 100, EOS), renderer)
        if question.program is not None:
            assert runs(question, question.expected, renderer)


@pytest.mark.timeout(400)
def test_three_nodes_say_what_one_process_says(
    questions: list[Question], answers: list[tuple[int, ...]], tmp_path: Path
) -> None:
    """To the id, every sixth question."""
    prompts = [question.prompt for question in questions[::6]]
    assert answer_by_swarm(FOLDER, prompts, tmp_path, lambda n_done: None) == answers[::6]


def test_every_expert_is_used(renderer: Renderer) -> None:
    from embedded.corpus import held_out_documents
    from embedded.questions import SEED

    documents = {kind: held_out_documents(kind, SEED, N_PER_KIND) for kind in KINDS}
    measures = measure_language(FOLDER, documents, renderer)
    assert all(0.5 <= load <= 2.0 for loads in measures.expert_loads for load in loads), measures.expert_loads
    assert measures.perplexity < 1.5
