"""`swarm chat`: a conversation in the terminal, or one turn for each line of piped input."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swarm.cli.console import note, print_event, streamed_text
from swarm.cli.generate import token_fields
from swarm.cli.generation import (
    CLIENT_LOGS,
    describe_generation,
    ended_with,
    generation_fields,
    open_client,
    sampling_options,
)
from swarm.cli.local_swarm import release_or_embedded
from swarm.cli.options import Reach, client_options, json_option, magnet_argument, node_options, publisher_option
from swarm.errors import BadArgument, SwarmError

if TYPE_CHECKING:
    from swarm.client import Client, TokenStream
    from swarm.client.admission import Admission
    from swarm.sampling import SamplingParams

CHAT_SCHEMA = "swarm.chat/1"

COMMANDS = """\
/reset            forget the conversation (the system prompt stays)
/system TEXT      set the system prompt and forget the conversation
/seed N           draw the same answers again; /seed alone draws anew
/temperature X    0 always takes the likeliest token
/max-tokens N     the most tokens of one answer
/help  /quit      Ctrl-C stops an answer, Ctrl-D leaves"""


@click.command(epilog="Example: swarm chat demo   or   swarm chat 'magnet:?xt=urn:btih:…' --system 'Be brief.'")
@magnet_argument(takes_demo=True)
@click.option("--system", metavar="TEXT", help="The system prompt.")
@sampling_options
@node_options
@client_options
@publisher_option
@json_option
def chat(
    magnet: str,
    system: str | None,
    sampling: dict[str, Any],
    reach: Reach,
    timeout_s: float,
    data_dir: Path | None,
    admission: Admission,
    as_json: bool,
) -> None:
    """Talk with the release that MAGNET names. Ctrl-C stops the answer, not the chat; /help lists the commands.

    MAGNET may be `demo`: the embedded release, served by three nodes on this machine for as long as the chat lasts.
    With piped input each line is a turn, and the first failure ends the chat.
    """
    from swarm.sampling import SamplingParams

    params = SamplingParams(**sampling)
    with (
        release_or_embedded(magnet, reach) as (magnet, reach),
        open_client(magnet, reach, timeout_s, data_dir, admission.publishers) as client,
    ):
        conversation = Conversation(client, params, system, as_json)
        if sys.stdin.isatty():
            note(f"{client.release.name}; /help lists the commands")
            talk(conversation, read_typed_line)
        else:
            for line in sys.stdin:
                if line.strip() and not conversation.take(line.strip()):
                    break


def talk(conversation: Conversation, read_line: Callable[[], str]) -> None:
    """Take turns until /quit, end of input, or two interrupts in a row at the prompt."""
    n_interrupts = 0
    while True:
        try:
            line = read_line().strip()
        except EOFError:
            note("")
            return
        except KeyboardInterrupt:
            n_interrupts += 1
            if n_interrupts > 1:
                raise
            note("\n/quit or Ctrl-D leaves; so does Ctrl-C once more")
            continue
        n_interrupts = 0
        try:
            if line and not conversation.take(line):
                return
        except SwarmError as error:
            note(f"error: {error.message}")


def read_typed_line() -> str:
    """A line with the terminal's own editing and history. Raises: EOFError, KeyboardInterrupt."""
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (importing it is what gives input() its editing)
    return input("> ")


class Conversation:
    """The messages so far, the parameters of the next answer, and how answers are shown."""

    def __init__(self, client: Client, params: SamplingParams, system: str | None, as_json: bool = False) -> None:
        self._client = client
        self._as_json = as_json
        self.params = params
        self.system = system
        self.messages: list[dict[str, str]] = []

    def take(self, line: str) -> bool:
        """One line of input: a command, or a message to answer. False when the chat is over."""
        if line.startswith("/"):
            name, _, value = line[1:].partition(" ")
            return self._command(name.lower(), value.strip())
        self.answer(line)
        return True

    def answer(self, text: str) -> None:
        """Stream the answer to `text`; an interrupt keeps what came, a failure leaves the conversation as it was."""
        asked = [*self.messages, {"role": "user", "content": text}]
        leading = [{"role": "system", "content": self.system}] if self.system else []
        stream = self._client.stream_chat([*leading, *asked], self.params)
        answer = self._show(stream)
        # An empty assistant message is one that no chat template takes: the whole turn is forgotten then.
        self.messages = [*asked, {"role": "assistant", "content": answer}] if answer else self.messages

    def _show(self, stream: TokenStream) -> str:
        parts: list[str] = []
        try:
            with ended_with(stream), streamed_text(*CLIENT_LOGS) as write:
                for event in stream:
                    parts.append(event.text)
                    if self._as_json:
                        print_event(CHAT_SCHEMA, "token", **token_fields(event))
                    else:
                        write(event.text)
        except KeyboardInterrupt:
            click.echo(" [stopped]" if not self._as_json else "", nl=not self._as_json, err=self._as_json)
            return "".join(parts)
        if self._as_json:
            print_event(CHAT_SCHEMA, "done", **generation_fields(stream.result))
        else:
            click.echo()
            if sys.stdin.isatty():
                note(describe_generation(stream.result))
        return "".join(parts)

    def _command(self, name: str, value: str) -> bool:
        match name:
            case "quit" | "exit" | "q":
                return False
            case "help" | "?":
                note(COMMANDS)
            case "reset":
                self.messages = []
                note("the conversation starts anew")
            case "system":
                self.system, self.messages = value or None, []
                note("system prompt set; the conversation starts anew" if value else "system prompt removed")
            case "seed":
                self._set("seed", parse(int, "/seed", value) if value else None)
            case "temperature":
                self._set("temperature", parse(float, "/temperature", value))
            case "max-tokens" | "max_tokens":
                self._set("max_tokens", parse(int, "/max-tokens", value))
            case _:
                raise BadArgument(f"there is no command /{name}; /help lists them")
        return True

    def _set(self, field: str, value: int | float | None) -> None:
        changed: dict[str, Any] = {field: value}
        self.params = dataclasses.replace(self.params, **changed)
        note(f"{field.replace('_', ' ')}: {'drawn anew for each answer' if value is None else value}")


def parse(kind: type[int] | type[float], command: str, value: str) -> int | float:
    """Raises: BadArgument for what is not a number."""
    try:
        return kind(value)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise BadArgument(f"{command} takes {wanted}, not {value!r}") from None
