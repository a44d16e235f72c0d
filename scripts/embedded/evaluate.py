"""`scripts/eval_embedded`: how well the embedded release answers what it never saw, in one process and in a swarm."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from embedded.corpus import KINDS, held_out_documents
from embedded.engines import Answers, answer_by_swarm, answer_in_one_process
from embedded.language import LanguageMeasures, measure_language
from embedded.questions import SEED, Question, held_out_questions, is_exact, runs
from embedded.rendering import Renderer
from swarm.embedded import release_folder


@dataclass(frozen=True, slots=True)
class KindScore:
    """n_running: of code, the answers that pass their checks; None for other kinds. n_same: answers of the swarm that
    are those of one process, id for id; None when no swarm was asked.
    """

    kind: str
    n: int
    n_exact: int
    n_exact_swarm: int | None
    n_same: int | None
    n_running: int | None


def main() -> int:
    options = parse_options()
    renderer = Renderer(options.release / "tekken.json")
    questions = held_out_questions(renderer, options.n)
    prompts = [question.prompt for question in questions]
    with progress_bar("one process", len(prompts)) as progress:
        local = answer_in_one_process(options.release, prompts, progress)
    swarm: Answers | None = None
    if not options.no_swarm:
        with tempfile.TemporaryDirectory(prefix="eval-embedded-") as folder:
            with progress_bar("three nodes", len(prompts)) as progress:
                swarm = answer_by_swarm(options.release, prompts, Path(folder), progress)
    scores = score(questions, local, swarm, renderer)
    documents = {kind: held_out_documents(kind, SEED, options.n) for kind in KINDS}
    language = measure_language(options.release, documents, renderer)
    show(scores, language, options.json)
    if options.wrong:
        show_wrong(questions, local, renderer)
    return 0 if passes(scores, language) else 1


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/eval_embedded", description=__doc__)
    parser.add_argument("--release", type=Path, default=None, help="a release in HF's layout (default: the embedded)")
    parser.add_argument("--n", type=int, default=30, help="held-out documents per kind (default: %(default)s)")
    parser.add_argument("--no-swarm", action="store_true", help="only in one process")
    parser.add_argument("--wrong", action="store_true", help="show the answers that are not exact")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args()
    options.release = options.release or release_folder()
    if options.n < 1:
        parser.error("--n is at least 1")
    return options


def score(questions: Sequence[Question], local: Answers, swarm: Answers | None, renderer: Renderer) -> list[KindScore]:
    scores = []
    for kind in dict.fromkeys(question.kind for question in questions):
        of_kind = [i for i, question in enumerate(questions) if question.kind == kind]
        has_program = questions[of_kind[0]].program is not None
        scores.append(
            KindScore(
                kind,
                len(of_kind),
                sum(is_exact(questions[i], local[i], renderer) for i in of_kind),
                None if swarm is None else sum(is_exact(questions[i], swarm[i], renderer) for i in of_kind),
                None if swarm is None else sum(local[i] == swarm[i] for i in of_kind),
                sum(runs(questions[i], local[i], renderer) for i in of_kind) if has_program else None,
            )
        )
    return scores


def passes(scores: Sequence[KindScore], language: LanguageMeasures) -> bool:
    """What the release promises: 90 % exact over all kinds, experts between half and twice their share, and a swarm
    that says what one process says.
    """
    return (
        sum(one.n_exact for one in scores) >= 0.9 * sum(one.n for one in scores)
        and all(one.n_same in (None, one.n) for one in scores)
        and all(0.5 <= load <= 2.0 for loads in language.expert_loads for load in loads)
    )


def show(scores: Sequence[KindScore], language: LanguageMeasures, as_json: bool) -> None:
    if as_json:
        for one in scores:
            print(json.dumps({"bench": "embedded", "case": one.kind, **asdict(one)}))
        print(json.dumps({"bench": "embedded", "case": "language", **asdict(language)}))
        return
    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold", title="held-out questions", title_justify="left")
    for heading in ("kind", "questions", "exact", "", "by three nodes", "same ids", "code runs", "perplexity"):
        table.add_column(heading, justify="left" if heading == "kind" else "right")
    for one in scores:
        table.add_row(*_cells(one), f"{language.perplexities[one.kind]:.3f}")
    table.add_section()
    table.add_row(*_cells(total(scores)), f"{language.perplexity:.3f}")
    console.print(table)
    for kind in language.perplexities.keys() - {one.kind for one in scores}:
        console.print(f"{kind}: perplexity {language.perplexities[kind]:.3f}")
    console.print("\nexpert load, times the mean (experts across, layers down)")
    for layer_idx, loads in enumerate(language.expert_loads):
        console.print(f"  layer {layer_idx}  " + "  ".join(f"{load:.2f}" for load in loads))


def total(scores: Sequence[KindScore]) -> KindScore:
    def add(values: Iterator[int | None]) -> int | None:
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    return KindScore(
        "all",
        sum(one.n for one in scores),
        sum(one.n_exact for one in scores),
        add(one.n_exact_swarm for one in scores),
        add(one.n_same for one in scores),
        add(one.n_running for one in scores),
    )


def _cells(one: KindScore) -> list[str]:
    optional = ["" if value is None else str(value) for value in (one.n_exact_swarm, one.n_same, one.n_running)]
    return [one.kind, str(one.n), str(one.n_exact), f"{one.n_exact / one.n:.1%}", *optional]


def show_wrong(questions: Sequence[Question], answers: Answers, renderer: Renderer) -> None:
    for question, answer in zip(questions, answers, strict=True):
        if not is_exact(question, answer, renderer):
            said, right = (renderer.tokenizer.decode(ids, continues=True) for ids in (answer, question.expected))
            print(f"{question.kind}: {question.text!r}\n   said  {said!r}\n   right {right!r}")


@contextmanager
def progress_bar(name: str, total: int) -> Iterator[Callable[[int], None]]:
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=total)
        yield lambda n_done: progress.update(task, completed=n_done)


if __name__ == "__main__":
    sys.exit(main())
