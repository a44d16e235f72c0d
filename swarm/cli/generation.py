"""What `generate`, `chat` and `demo` share: sampling flags, the connection, and how an answer is accounted for."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from swarm.cli.console import WAITING_LOG, format_duration, note_logs
from swarm.cli.links import read_magnet
from swarm.cli.options import Reach
from swarm.terms import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from swarm.client import Client, Generation, TokenStream
    from swarm.facts import Route
    from swarm.messages import HopTime
    from swarm.terms import NodeId

CLIENT_LOGS = ("swarm.client", WAITING_LOG)
"""The loggers that say which nodes were lost, and what is waited for."""

Verb = TypeVar("Verb", bound=Callable[..., Any])


def sampling_options(verb: Verb) -> Verb:
    """The sampling flags, handed to the verb as one `sampling`: the keyword arguments of SamplingParams.

    Only what was given (or configured) is in it: defaults and limits stay SamplingParams' own.
    """

    @click.option(
        "--max-tokens",
        type=int,
        envvar="SWARM_MAX_TOKENS",
        show_envvar=True,
        help="The most tokens to generate (default: 256).",
    )
    @click.option(
        "--temperature",
        type=float,
        envvar="SWARM_TEMPERATURE",
        show_envvar=True,
        help="0: always the likeliest token (default: 0.7).",
    )
    @click.option("--top-p", type=float, help="Keep the likeliest tokens that make up this probability.")
    @click.option("--top-k", type=int, help="Keep this many of the likeliest tokens (0: all).")
    @click.option("--min-p", type=float, help="Keep tokens at least this likely, relative to the likeliest.")
    @click.option("--seed", type=int, help="The same seed and prompt give the same answer.")
    @click.option("--stop", multiple=True, metavar="TEXT", help="End the answer before this text (repeatable).")
    @functools.wraps(verb)
    def with_sampling(*args: Any, **values: Any) -> Any:
        names = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop")
        taken = {name: values.pop(name) for name in names}
        sampling = {name: value for name, value in taken.items() if value is not None and value != ()}
        return verb(*args, sampling=sampling, **values)

    return with_sampling  # type: ignore[return-value]


def open_client(
    magnet: str, reach: Reach, timeout_s: float, data_dir: Path | None, publishers: Iterable[NodeId] = ()
) -> Client:
    """A client of the release that the magnet names. Raises: MagnetError, MetadataTimeout, NoNodesFound."""
    import swarm.client

    read_magnet(magnet)
    note_logs(*CLIENT_LOGS)
    return swarm.client.connect(
        magnet,
        bootstrap=[str(address) for address in reach.bootstrap],
        peers=[str(address) for address in reach.peers],
        network=reach.network,
        data_dir=data_dir,
        timeout_s=timeout_s,
        publishers=tuple(publishers),
    )


@contextlib.contextmanager
def ended_with(stream: TokenStream) -> Iterator[None]:
    """Cancel the stream when showing it fails (an interrupt, a closed pipe), so that every stage drops its session."""
    try:
        yield
    except BaseException:
        stream.cancel()
        raise


def describe_generation(generation: Generation) -> str:
    """One line for the person: tokens, speed, time to the first token, and how many nodes took part."""
    usage, timings = generation.usage, generation.timings
    words = [f"{usage.prompt_tokens} + {counted(usage.completion_tokens, 'token')}"]
    if usage.prompt_tokens_cached:
        words.append(f"{usage.prompt_tokens_cached} of them found cached")
    tokens_per_s = timings.tokens_per_s
    if tokens_per_s:
        words.append(f"{tokens_per_s:.1f} tokens/s")
    words.append(f"first token after {format_duration(timings.first_token_s)}")
    if generation.route is not None:
        words.append(f"{counted(len(generation.route.hops), 'node')} ({generation.route})")
    if timings.n_replays:
        words.append(f"{counted(timings.n_replays, 'route')} lost and replaced")
    words.append(f"ended by {generation.finish_reason}")
    return ", ".join(words)


def generation_fields(generation: Generation) -> dict[str, Any]:
    """A generation as JSON values."""
    usage, timings = generation.usage, generation.timings
    return {
        "text": generation.text,
        "ids": list(generation.ids),
        "logprobs": list(generation.logprobs),
        "finish_reason": generation.finish_reason,
        "seed": generation.seed,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "prompt_tokens_cached": usage.prompt_tokens_cached,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
        },
        "timings": {
            "first_token_s": timings.first_token_s,
            "total_s": timings.total_s,
            "tokens_per_s": timings.tokens_per_s,
            "n_replays": timings.n_replays,
        },
        "route": None if generation.route is None else route_fields(generation.route),
    }


def route_fields(route: Route) -> dict[str, Any]:
    hops = [{"node_id": h.node_id, "address": str(h.address), "layers": str(h.span)} for h in route.hops]
    return {"profile": str(route.profile), "hops": hops}


def hop_time_fields(hop_times: Sequence[HopTime]) -> list[dict[str, Any]]:
    return [{"node_id": t.node_id, "queue_s": t.queue_s, "compute_s": t.compute_s} for t in hop_times]
