"""`swarm demo`: a whole swarm on this machine, a conversation with it, and the loss of a node in the middle of it."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swarm.cli.console import (
    format_duration,
    format_percent,
    format_size,
    note,
    out_console,
    print_event,
)
from swarm.cli.generate import token_fields
from swarm.cli.generation import describe_generation, ended_with, generation_fields, open_client
from swarm.cli.local_swarm import (
    N_NODES,
    READY_TIMEOUT_S,
    LocalNode,
    LocalSwarm,
    interrupted_by_sigterm,
    require_torch,
    split_layers,
    temporary_folder,
)
from swarm.cli.options import Reach, json_option
from swarm.errors import SwarmError
from swarm.terms import counted, short_id

if TYPE_CHECKING:
    from swarm.client import Client, Generation, TokenEvent
    from swarm.sampling import SamplingParams

DEMO_SCHEMA = "swarm.demo/2"

QUESTIONS = (
    "Hello! Who are you?",
    "What is a magnet link?",
    "What is 17 plus 25?",
    'How do you say "the red boat" in French?',
    "Write a Python function that returns the first 3 items of a list.",
    "Tell me a story about a fox.",
)

KILL_AFTER_TOKENS = 16
"""Of the last answer: far enough in that everybody sees it was under way."""


@click.command(epilog="Example: swarm demo --prompt 'Tell me a story about an owl.' --spans")
@click.option(
    "--prompt", "prompts", multiple=True, help="What to say instead of the demo's own questions (repeatable)."
)
@click.option("--max-tokens", type=click.IntRange(min=1), default=192, show_default=True, help="The most per answer.")
@click.option("--kill/--no-kill", "kills", default=True, help="Kill a node in the middle of the last answer.")
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Work in this folder, and keep it.")
@click.option("--spans", "shows_spans", is_flag=True, help="Show what each hop spent on each token.")
@json_option
def demo(
    prompts: tuple[str, ...], max_tokens: int, kills: bool, keep: Path | None, shows_spans: bool, as_json: bool
) -> None:
    """Run a whole swarm on this machine: seed the embedded release, start nodes from its magnet link, and talk with it.

    Three nodes hold a third of the layers each, and a fourth one stands by: in the middle of the last answer a node is
    killed, and the answer goes on. Needs no network and no downloads, and removes its files unless --keep names a
    folder.
    """
    require_torch()
    with working_folder(keep) as folder, interrupted_by_sigterm():
        Demo(folder, prompts or QUESTIONS, max_tokens, kills, shows_spans, as_json).run()


class Demo:
    """One run: its swarm, the conversation, and what it says on the way."""

    def __init__(
        self, folder: Path, prompts: tuple[str, ...], max_tokens: int, kills: bool, shows_spans: bool, as_json: bool
    ) -> None:
        self._folder = folder
        self._prompts = prompts
        self._max_tokens = max_tokens
        self._kills = kills
        self._shows_spans = shows_spans
        self._as_json = as_json
        self._started_s = time.monotonic()

    def run(self) -> None:
        with LocalSwarm(self._folder) as swarm:
            self._start(swarm)
            with open_client(swarm.magnet, Reach("loopback"), READY_TIMEOUT_S, swarm.client_data_dir) as client:
                # What the client would say of the lost node, the demo says itself, and not in the middle of a sentence.
                logging.getLogger("swarm.client").setLevel(logging.WARNING)
                self._talk(client, swarm)
            n_processes = swarm.n_processes
        self._say("stopped", f"all {n_processes} processes stopped after {self._elapsed()}")

    # -- the steps, in order -------------------------------------------------------------------------------------

    def _start(self, swarm: LocalSwarm) -> None:
        from swarm.embedded import release_folder
        from swarm.release import read_folder_layout

        release = release_folder()
        seeder = swarm.seed(release)
        words = f"seeding {release.name} ({format_size(swarm.total_bytes)}): {swarm.magnet}"
        self._say("seeding", words, magnet=swarm.magnet, pid=seeder.pid)
        spans = split_layers(read_folder_layout(release).args.n_layers, N_NODES)
        spare = [spans[len(spans) // 2]] if self._kills else []
        swarm.start_nodes(spans + spare, self._say_ready)
        self._show_nodes(swarm)

    def _talk(self, client: Client, swarm: LocalSwarm) -> None:
        """Every prompt in one conversation; the last answer loses a node, and is checked against one that does not."""
        from swarm.sampling import SamplingParams

        params = SamplingParams(max_tokens=self._max_tokens, temperature=0.0)
        messages: list[dict[str, str]] = []
        for prompt in self._prompts:
            is_last = len(messages) == 2 * (len(self._prompts) - 1)
            messages.append({"role": "user", "content": prompt})
            lost, events, answer = self._answer(client, swarm, messages, params, kills=is_last and self._kills)
            messages.append({"role": "assistant", "content": answer.text})
        if not self._as_json:
            click.echo(f"\n{describe_generation(answer)}")
            for hop in mean_hop_times(events):
                click.echo(f"  {short_id(hop['node_id'])}  {format_duration(hop['mean_s'])} a token")
            if self._shows_spans:
                print_spans(events)
        if lost is not None:
            self._check_loss(client, messages[:-1], params, lost, answer)

    def _answer(
        self, client: Client, swarm: LocalSwarm, messages: list[dict[str, str]], params: SamplingParams, kills: bool
    ) -> tuple[LocalNode | None, list[TokenEvent], Generation]:
        """Stream one answer, and kill the node in the middle of its route if asked to; the node that was killed."""
        stream = client.stream_chat(messages, params)
        lost: LocalNode | None = None
        events: list[TokenEvent] = []
        if self._as_json:
            print_event(DEMO_SCHEMA, "question", text=messages[-1]["content"])
        else:
            click.echo(f"\n> {messages[-1]['content']}")
        with ended_with(stream):
            for event in stream:
                events.append(event)
                if self._as_json:
                    print_event(DEMO_SCHEMA, "token", **token_fields(event))
                else:
                    click.echo(event.text, nl=False)
                    sys.stdout.flush()
                if kills and len(events) == KILL_AFTER_TOKENS:
                    lost = self._kill_middle(swarm, event)
        answer = stream.result
        if self._as_json:
            print_event(DEMO_SCHEMA, "answer", **generation_fields(answer), hops=mean_hop_times(events))
        else:
            click.echo()
        return lost, events, answer

    def _kill_middle(self, swarm: LocalSwarm, event: TokenEvent) -> LocalNode:
        """Kill the node that serves the middle of the route which this token came by."""
        node_id = event.hop_times[len(event.hop_times) // 2].node_id
        node = next(node for node in swarm.nodes if node.node_id == node_id)
        swarm.kill(node)
        if self._as_json:
            print_event(DEMO_SCHEMA, "killed", node_id=node_id, layers=str(node.span), pid=node.child.pid)
        else:
            click.secho(f" [{node.child.name} killed]", nl=False, dim=True)
            sys.stdout.flush()
        return node

    def _check_loss(
        self,
        client: Client,
        messages: list[dict[str, str]],
        params: SamplingParams,
        lost: LocalNode,
        answer: Generation,
    ) -> None:
        """Ask the same again with nobody lost. Raises: SwarmError if a single token differs."""
        undisturbed = client.chat(messages, params)
        if undisturbed.ids != answer.ids:
            raise SwarmError(f"after the loss of {lost.child.name} the answer changed: {undisturbed.text!r}")
        n_tokens = len(answer.ids)
        self._say(
            "checked",
            f"{lost.child.name} (layers {lost.span}) was killed after {KILL_AFTER_TOKENS} tokens, and another "
            f"took over; asked again with no loss, the answer has the same {counted(n_tokens, 'token')}",
            node_id=lost.node_id,
            n_tokens=n_tokens,
            n_replays=answer.timings.n_replays,
        )

    # -- what is said ----------------------------------------------------------------------------------------------

    def _say_ready(self, node: LocalNode) -> None:
        words = f"{node.child.name} serves layers {node.span} after {self._elapsed()}"
        self._say("node", words, node_id=node.node_id, layers=str(node.span), pid=node.child.pid, ready=node.ready)

    def _show_nodes(self, swarm: LocalSwarm) -> None:
        if self._as_json:
            return
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("node", "id", "layers", "pid", "needs", "fetched", "of the release"):
            table.add_column(heading, justify="left" if heading in ("node", "id", "layers") else "right", no_wrap=True)
        for node in swarm.nodes:
            table.add_row(
                node.child.name,
                short_id(node.node_id),
                str(node.span),
                str(node.child.pid),
                format_size(node.needed_bytes),
                format_size(node.fetched_bytes),
                format_percent(node.fetched_bytes, int(node.ready.get("release_bytes", swarm.total_bytes))),
            )
        out_console().print(table)

    def _say(self, event: str, words: str, **fields: Any) -> None:
        if self._as_json:
            print_event(DEMO_SCHEMA, event, **fields, elapsed_s=time.monotonic() - self._started_s)
        else:
            note(words)

    def _elapsed(self) -> str:
        return format_duration(time.monotonic() - self._started_s)


def mean_hop_times(events: list[TokenEvent]) -> list[dict[str, Any]]:
    """Per node, the mean seconds of one decoding step: the first event's is the whole prompt's, and is left out."""
    decoded = events[1:] or events
    spent: dict[str, list[float]] = {}
    for event in decoded:
        for hop in event.hop_times:
            spent.setdefault(hop.node_id, []).append(hop.queue_s + hop.compute_s)
    return [{"node_id": node_id, "mean_s": sum(times) / len(times)} for node_id, times in spent.items()]


def print_spans(events: list[TokenEvent]) -> None:
    """A row per token: what each hop spent on it, and what was spent between them."""
    from rich.table import Table

    if not events:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("token", *(short_id(hop.node_id) for hop in events[-1].hop_times), "between", "in all"):
        table.add_column(heading, justify="right", no_wrap=True)
    before_s = 0.0
    for event in events:
        step_s, before_s = event.elapsed_s - before_s, event.elapsed_s
        hops_s = [hop.queue_s + hop.compute_s for hop in event.hop_times]
        cells = [format_duration(seconds) for seconds in (*hops_s, max(0.0, step_s - sum(hops_s)), step_s)]
        table.add_row(str(event.index), *cells)
    out_console().print(table)


@contextlib.contextmanager
def working_folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    with temporary_folder() as folder:
        yield folder
