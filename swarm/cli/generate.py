"""`swarm generate`: one prompt in, its continuation out, as it comes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swarm.cli.console import note, print_event, streamed_text
from swarm.cli.generation import (
    CLIENT_LOGS,
    describe_generation,
    ended_with,
    generation_fields,
    hop_time_fields,
    open_client,
    sampling_options,
)
from swarm.cli.local_swarm import release_or_embedded
from swarm.cli.options import (
    EMBEDDED,
    Reach,
    client_options,
    json_option,
    magnet_argument,
    node_options,
    publisher_option,
)
from swarm.errors import BadArgument, SwarmError

if TYPE_CHECKING:
    from swarm.client import TokenEvent, TokenStream
    from swarm.client.admission import Admission
    from swarm.grammar import Grammar

GENERATE_SCHEMA = "swarm.generate/1"


@click.command(epilog="Example: swarm generate 'magnet:?xt=urn:btih:…' 'The capital of France is' --max-tokens 40")
@magnet_argument(takes_demo=True)
@click.argument("prompt", required=False)
@click.option(
    "--file", "prompt_file", type=click.File(encoding="utf-8"), help="Read the prompt from a file (-: stdin)."
)
@sampling_options
@click.option("--logprobs", type=int, metavar="N", help="With --json: each token's log-probability and N alternatives.")
@click.option("--ignore-eos", is_flag=True, help="Go on to --max-tokens whatever the model says; for benchmarks.")
@click.option(
    "--json-schema",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The answer is JSON that the schema in FILE accepts.",
)
@click.option("--regex", metavar="TEXT", help="The answer is text that this regular expression matches as a whole.")
@click.option("--journal", type=click.Path(dir_okay=False, path_type=Path), help="Write a journal that --resume reads.")
@click.option("--resume", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Go on from a journal.")
@node_options
@client_options
@publisher_option
@json_option
def generate(
    magnet: str,
    prompt: str | None,
    prompt_file: Any,
    sampling: dict[str, Any],
    logprobs: int | None,
    ignore_eos: bool,
    json_schema: Path | None,
    regex: str | None,
    journal: Path | None,
    resume: Path | None,
    reach: Reach,
    timeout_s: float,
    data_dir: Path | None,
    admission: Admission,
    as_json: bool,
) -> None:
    """Complete PROMPT with the release that MAGNET names, streaming the text to stdout and the figures to stderr.

    MAGNET may be `demo`: the embedded release, served by three nodes on this machine for as long as it takes.
    PROMPT may be - for stdin. With --resume it is left out: the journal has it, and the parameters too.
    """
    from swarm.sampling import SamplingParams
    from swarm.torrent import magnet_of

    if magnet != EMBEDDED:
        magnet_of(magnet)
    if resume is not None:
        refuse_with_resume(
            prompt=prompt, file=prompt_file, journal=journal, logprobs=logprobs, json_schema=json_schema, regex=regex,
            **sampling,
        )  # fmt: skip
    text = "" if resume is not None else read_prompt(prompt, prompt_file)
    params = SamplingParams(**sampling, logprobs=logprobs, ignore_eos=ignore_eos)
    grammar = read_grammar(json_schema, regex)
    with (
        release_or_embedded(magnet, reach) as (magnet, reach),
        telling_how_to_go_on(resume or journal),
        open_client(magnet, reach, timeout_s, data_dir, admission.publishers) as client,
    ):
        if resume is not None:
            stream = client.resume(resume)
        else:
            stream = client.stream(text, params, journal=journal, grammar=grammar)
        show_stream(stream, as_json)


@contextlib.contextmanager
def telling_how_to_go_on(journal: Path | None) -> Iterator[None]:
    """An interrupt or a failure that left tokens in the journal is followed by how to get the rest."""
    try:
        yield
    except (KeyboardInterrupt, SwarmError) as error:
        if journal is not None and not isinstance(error, BadArgument) and journal.is_file() and journal.stat().st_size:
            note(f"\nwhat came is kept; go on with: swarm generate MAGNET --resume {journal}")
        raise


def read_prompt(prompt: str | None, prompt_file: Any) -> str:
    """The prompt from wherever the user put it. Raises: BadArgument."""
    if prompt is not None and prompt_file is not None:
        raise BadArgument("give the prompt either as an argument or with --file, not both")
    if prompt_file is not None:
        return str(prompt_file.read())
    if prompt is None:
        raise BadArgument(
            "there is no prompt; give it in quotes after the magnet link (which wants quotes too: it holds an &), "
            "or - to read it from stdin"
        )
    text = sys.stdin.read() if prompt == "-" else prompt
    if not text:
        raise BadArgument("the prompt is empty; give some text")
    return text


def read_grammar(json_schema: Path | None, regex: str | None) -> Grammar | None:
    """What the flags say that the answer may be. Raises: BadArgument."""
    from swarm.grammar import Grammar

    if json_schema is not None and regex is not None:
        raise BadArgument("give either --json-schema or --regex: an answer keeps one grammar")
    if json_schema is not None:
        try:
            return Grammar.json_schema(json_schema.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise BadArgument(f"cannot read the schema in {json_schema}: {error}") from error
    return Grammar.regex(regex) if regex is not None else None


def refuse_with_resume(**given: Any) -> None:
    """Raises: BadArgument naming the flags that a journal already settles."""
    named = [name.replace("_", "-") for name, value in given.items() if value is not None]
    if named:
        raise BadArgument(f"--resume takes everything from its journal; leave out: {', '.join(named)}")


def show_stream(stream: TokenStream, as_json: bool) -> None:
    """Write tokens as they come, and the account of them at the end."""
    n_come = 0
    with ended_with(stream), streamed_text(*CLIENT_LOGS) as write:
        for event in stream:
            n_come += 1
            if as_json:
                print_event(GENERATE_SCHEMA, "token", **token_fields(event))
            else:
                write(event.text)
    result = stream.result
    if as_json:
        print_event(GENERATE_SCHEMA, "done", **generation_fields(result))
    elif not n_come and result.text:  # only a resumed one has text without a token
        click.echo(result.text)
        note(f"the journal was at its end: this is its whole answer, ended by {result.finish_reason}")
    else:
        click.echo()
        note(describe_generation(result))


def token_fields(event: TokenEvent) -> dict[str, Any]:
    return {
        "index": event.index,
        "id": event.id,
        "text": event.text,
        "logprob": event.logprob,
        "top_logprobs": [{"id": token_id, "logprob": logprob} for token_id, logprob in event.top_logprobs],
        "hop_times": hop_time_fields(event.hop_times),
        "elapsed_s": event.elapsed_s,
    }
