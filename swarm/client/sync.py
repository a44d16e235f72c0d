"""The synchronous client: the asynchronous one on an event loop of its own, in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from swarm.client.guest import AsyncClient, AsyncGeneration, Message, Prompt, connect_async
from swarm.client.values import ClientRelease, Generation, SwarmStatus, TokenEvent
from swarm.errors import BadArgument
from swarm.grammar import Grammar
from swarm.sampling import SamplingParams

T = TypeVar("T")


class _LoopThread:
    """An event loop that runs in a daemon thread until closed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="swarm-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for work; an exception in this thread meanwhile (Ctrl-C, say) cancels it and waits for its end."""
        ended = threading.Event()

        async def watched() -> T:
            try:
                return await work
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(watched(), self._loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                ended.wait()
            raise

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


class TokenStream:
    """A generation under way: an iterator of TokenEvents.

    cancel() stops it, from this thread or another; result is the Generation so far, final once the iterator has ended.
    """

    def __init__(self, loop: _LoopThread, generation: AsyncGeneration) -> None:
        self._loop = loop
        self._generation = generation
        self._cancelled = False

    def __iter__(self) -> Iterator[TokenEvent]:
        return self

    def __next__(self) -> TokenEvent:
        if self._cancelled:
            raise StopIteration
        try:
            event = self._loop.run(_next(self._generation))
        except concurrent.futures.CancelledError:
            raise StopIteration from None
        if event is None:
            raise StopIteration
        return event

    def __enter__(self) -> TokenStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Stop here: every stage drops the session. Needed whenever the iterator is left before its end."""
        self._cancelled = True
        self._loop.run(self._generation.cancel())

    @property
    def result(self) -> Generation:
        return self._generation.result


class Client:
    """A guest of one release's swarm, for code without an event loop. Use `connect`, as a context manager."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._loop: _LoopThread | None = None

    def __enter__(self) -> Client:
        self._loop = _LoopThread()
        try:
            self._loop.run(self._client.__aenter__())
        except BaseException:
            self._loop.close()
            self._loop = None
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._loop is not None:
            self._loop.run(self._client.close())
            self._loop.close()
            self._loop = None

    @property
    def release(self) -> ClientRelease:
        return self._client.release

    def stream(
        self, prompt: Prompt, params: SamplingParams | None = None, *, journal: Path | None = None,
        grammar: Grammar | None = None,
    ) -> TokenStream:  # fmt: skip
        """Begin a generation. prompt: text (completed as is) or token ids. journal: a file to keep it in for
        `resume`. grammar: what the answer may be.
        """
        return self._streamed(lambda: self._client.stream(prompt, params, journal=journal, grammar=grammar))

    def stream_chat(
        self, messages: Sequence[Message], params: SamplingParams | None = None, *, journal: Path | None = None,
        tools: Sequence[Message] = (), grammar: Grammar | None = None,
    ) -> TokenStream:  # fmt: skip
        """Begin the answer to a conversation: [{"role": "user", "content": "..."}, ...]. tools: what the model is told
        that it may call.
        """
        return self._streamed(
            lambda: self._client.stream_chat(messages, params, journal=journal, tools=tools, grammar=grammar)
        )

    def resume(self, journal: Path) -> TokenStream:
        """Go on with a journaled generation."""
        return self._streamed(lambda: self._client.resume(journal))

    def generate(
        self, prompt: Prompt, params: SamplingParams | None = None, *, grammar: Grammar | None = None
    ) -> Generation:
        """The whole answer at once."""
        return self._running().run(self._client.generate(prompt, params, grammar=grammar))

    def chat(
        self, messages: Sequence[Message], params: SamplingParams | None = None, *,
        tools: Sequence[Message] = (), grammar: Grammar | None = None,
    ) -> Generation:  # fmt: skip
        """The whole answer to a conversation."""
        return self._running().run(self._client.chat(messages, params, tools=tools, grammar=grammar))

    def status(self) -> SwarmStatus:
        """Ask around now, and tell what the swarm looks like."""
        return self._running().run(self._client.status())

    def _running(self) -> _LoopThread:
        if self._loop is None:
            raise BadArgument("the client is not connected; use it in a `with` statement")
        return self._loop

    def _streamed(self, begin: Callable[[], AsyncGeneration]) -> TokenStream:
        loop = self._running()

        async def on_loop() -> AsyncGeneration:
            return begin()

        return TokenStream(loop, loop.run(on_loop()))


def connect(
    magnet: str, *, bootstrap: Sequence[str] = (), peers: Sequence[str] = (), network: str | None = None,
    data_dir: Path | None = None, timeout_s: float = 60.0, publishers: Sequence[str] = (),
    for_batches: bool = False,
) -> Client:  # fmt: skip
    """A client of the release that magnet names; enter it with `with`. Arguments and errors: see `connect_async`."""
    return Client(
        connect_async(
            magnet, bootstrap=bootstrap, peers=peers, network=network, data_dir=data_dir, timeout_s=timeout_s,
            publishers=publishers, for_batches=for_batches,
        )
    )  # fmt: skip


async def _next(generation: AsyncGeneration) -> TokenEvent | None:
    return await anext(generation, None)
