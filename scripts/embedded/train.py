"""`scripts/train_embedded`: the corpus, the vocabulary, the training and the release files, from nothing but a seed."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from embedded.card import license_text, model_card
from embedded.corpus import training_documents
from embedded.plot import plot_losses
from embedded.release import ARGS, write_releases
from embedded.rendering import texts_of
from embedded.training import Report, TrainingConfig, load_parameters, train
from embedded.vocabulary import train_vocabulary

N_VOCABULARY_DOCUMENTS = 60_000


def main() -> int:
    options = parse_options()
    options.work.mkdir(parents=True, exist_ok=True)
    config = TrainingConfig(n_first_steps=options.steps, n_focus_steps=options.focus_steps, seed=options.seed)
    tokenizer = options.work / "tekken.json"
    if not tokenizer.exists():
        write_vocabulary(tokenizer, options.seed)
    checkpoint = options.work / "checkpoint.safetensors"
    log = options.work / "losses.jsonl"
    if not run_training(config, tokenizer, checkpoint, log, options.workers):
        print(f"stopped; the same command goes on from {checkpoint}", file=sys.stderr)
        return 130
    plot_losses(log, options.work / "losses.png")
    parameters = load_parameters(ARGS, checkpoint)
    write_releases(
        parameters, tokenizer, {"README.md": model_card(ARGS, config), "LICENSE": license_text()}, options.work
    )
    print(f"wrote {options.work}/hf, {options.work}/mistral and {options.work}/losses.png", file=sys.stderr)
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/train_embedded", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/embedded"), help="checkpoint, log, plot and releases")
    usual = TrainingConfig()
    parser.add_argument("--steps", type=int, default=usual.n_first_steps, help="of 8,192 rows (default: %(default)s)")
    parser.add_argument("--focus-steps", type=int, default=usual.n_focus_steps, help="then (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes of one thread")
    options = parser.parse_args()
    if options.steps < 1 or options.workers < 1 or options.focus_steps < 0:
        parser.error("--steps and --workers are at least 1, --focus-steps at least 0")
    return options


def write_vocabulary(path: Path, seed: int) -> None:
    print(f"training the vocabulary on {N_VOCABULARY_DOCUMENTS:,} documents", file=sys.stderr)
    documents = islice(training_documents(seed), N_VOCABULARY_DOCUMENTS)
    vocabulary = train_vocabulary((text for document in documents for text in texts_of(document)), ARGS.vocab_size)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(vocabulary, ensure_ascii=False, indent=0) + "\n")
    partial.replace(path)


def run_training(config: TrainingConfig, tokenizer: Path, checkpoint: Path, log: Path, n_workers: int) -> bool:
    """Trains with a progress bar; every step is a line of the log. Whether it came to the end."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress, log.open("a") as log_file:
        task = progress.add_task("training", total=config.n_steps)
        smoothed = 0.0

        def report(step: Report) -> None:
            nonlocal smoothed
            smoothed = step.cross_entropy if not smoothed else 0.98 * smoothed + 0.02 * step.cross_entropy
            log_file.write(json.dumps(asdict(step)) + "\n")
            log_file.flush()
            words = f"loss {smoothed:.4f}  balance {step.balance:.3f}"
            progress.update(task, completed=step.step_idx + 1, description=words)

        return train(ARGS, config, tokenizer, checkpoint, n_workers, report, stop)


if __name__ == "__main__":
    sys.exit(main())
