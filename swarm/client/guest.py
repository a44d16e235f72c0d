"""The asynchronous client: joins a release's swarm as a guest, and generates."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

import platformdirs

from swarm.client.admission import Admission
from swarm.client.generation import TokenLoop, check_context
from swarm.client.journal import Journal
from swarm.client.network import NetworkConfig, RpcFactsPort
from swarm.client.release import fetch_client_release, fetch_metadata
from swarm.client.routes import RouteFinder
from swarm.client.values import ClientRelease, Generation, SwarmStatus, TokenEvent
from swarm.discovery import Discovery
from swarm.errors import BadArgument, MetadataTimeout, TransferError
from swarm.grammar import Grammar, GrammarCompiler
from swarm.identity import NodeKey, issue
from swarm.routing import coverage, expert_coverage
from swarm.rpc import Dialer
from swarm.sampling import SamplingParams
from swarm.terms import Address, NodeId, is_node_id
from swarm.tokenizer import Tokenizer
from swarm.torrent import Download, TorrentSession, magnet_of

Prompt = str | Sequence[int]
Message = Mapping[str, object]


class AsyncGeneration:
    """One generation under way: an async iterator of its tokens, which may be cancelled; then its result.

    Left before its end, it must be cancelled, or used as an async context manager, which does that: until then every
    stage keeps its session.
    """

    def __init__(self, loop: TokenLoop) -> None:
        self._loop = loop
        self._events = loop.events()
        self._reading: asyncio.Task[TokenEvent] | None = None
        self._cancelled = False

    def __aiter__(self) -> AsyncGeneration:
        return self

    async def __anext__(self) -> TokenEvent:
        if self._cancelled:
            raise StopAsyncIteration
        self._reading = asyncio.create_task(self._next())
        try:
            return await self._reading
        except asyncio.CancelledError:
            if self._cancelled:
                raise StopAsyncIteration from None
            raise

    async def cancel(self) -> None:
        """Stop here, also while another task waits for the next token: every stage drops the session."""
        self._cancelled = True
        if self._reading is not None and not self._reading.done():
            self._reading.cancel()
            await asyncio.wait((self._reading,))
        await self._events.aclose()

    async def __aenter__(self) -> AsyncGeneration:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cancel()

    @property
    def result(self) -> Generation:
        """All so far; final once the iterator has ended."""
        return self._loop.generation

    async def _next(self) -> TokenEvent:
        return await anext(self._events)


class AsyncClient:
    """A guest of one release's swarm. Use `connect_async`, as an async context manager.

    timeout_s: the longest that any call waits for others (metadata, files, a whole route) before it raises.
    """

    def __init__(
        self, magnet: str, *, bootstrap: Sequence[str] = (), peers: Sequence[str] = (), network: str | None = None,
        data_dir: Path | None = None, timeout_s: float = 60.0, publishers: Sequence[str] = (),
        for_batches: bool = False,
    ) -> None:  # fmt: skip
        if not timeout_s > 0:
            raise BadArgument(f"timeout_s is {timeout_s}; it must be positive")
        self.magnet = magnet_of(magnet)
        self._for_batches = for_batches
        self.timeout_s = timeout_s
        if not all(map(is_node_id, publishers)):
            raise BadArgument("publishers are ids of keys, as `swarm keys show NAME` prints them")
        self._admission = Admission(publishers=frozenset(map(NodeId, publishers)), hosts=False)
        self._peers = tuple(Address.parse(peer) for peer in peers)
        self._network = NetworkConfig.named(network, tuple(Address.parse(node) for node in bootstrap))
        base = data_dir or Path(platformdirs.user_cache_dir("mistral-swarm"))
        self._dir = base / "client" / self.magnet.infohash
        tls = issue(NodeKey.generate())
        self._client_id = tls.node_id
        self._page_secret = os.urandom(32)
        self._dialer = Dialer(tls, self._network.rpc)
        self._torrent = TorrentSession(self._network.torrent)
        self._discovery = Discovery(
            self.magnet.infohash,
            RpcFactsPort(self._dialer),
            self._network.discovery,
            rendezvous=self._network.rendezvous(self._torrent),
            static_peers=self._peers,
        )
        self._release: ClientRelease | None = None
        self._finder: RouteFinder | None = None
        self._compiler: GrammarCompiler | None = None
        self._exchanging: asyncio.Task[None] | None = None

    async def __aenter__(self) -> AsyncClient:
        try:
            await self._torrent.start()
            self._release = await self._fetch_release()
        except BaseException:
            await self.close()
            raise
        if self._release.tokenizer is not None:
            self._compiler = GrammarCompiler(self._release.tokenizer, self._release.args.vocab_size)
        self._finder = RouteFinder(
            self._discovery, self._release.args.n_layers, self.timeout_s, self._client_id, self._for_batches,
            self.magnet.cut_hint,
        )  # fmt: skip
        self._exchanging = asyncio.create_task(self._discovery.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every generation under way, and leave."""
        if self._exchanging is not None:
            self._exchanging.cancel()
            await asyncio.gather(self._exchanging, return_exceptions=True)
        await self._discovery.close()
        await self._dialer.close()
        await self._torrent.close()

    @property
    def release(self) -> ClientRelease:
        """The release, known once the client is entered."""
        if self._release is None:
            raise BadArgument("the client is not connected; use it in a `with` statement")
        return self._release

    # -- generating ----------------------------------------------------------------------------------------------

    def stream(
        self, prompt: Prompt, params: SamplingParams | None = None, *, journal: Path | None = None,
        grammar: Grammar | None = None, continues: bool = True, on_behalf_of: str = "",
    ) -> AsyncGeneration:  # fmt: skip
        """Begin a generation. prompt: text (completed as is) or token ids.

        continues: False for ids after which a text of its own begins, such as those of a chat template.
        journal: a file to keep the generation in, so that `resume` can go on with it after this process died.
        grammar: what the answer may be; it ends as soon as nothing else can follow.
        on_behalf_of: for whom, where one client serves several: only prompts of the same one are found cached.
        Raises: BadArgument, ContextLengthExceeded; while iterated: DiscoveryError, RpcError, SessionError, and
        BadArgument (before the first token) for a grammar that cannot be used.
        """
        return self._begin_new(
            self._encode(prompt), params, journal, grammar, continues=continues, on_behalf_of=on_behalf_of
        )

    def stream_chat(
        self, messages: Sequence[Message], params: SamplingParams | None = None, *, journal: Path | None = None,
        tools: Sequence[Message] = (), grammar: Grammar | None = None,
    ) -> AsyncGeneration:  # fmt: skip
        """As `stream`, for the answer to a conversation: [{"role": "user", "content": "..."}, ...].

        tools: what the model is told that it may call, as in the chat completions API; Grammar.tool_call makes it.
        """
        ids = self._tokenizer("chat").encode_chat(messages, tools)
        return self._begin_new(ids, params, journal, grammar, continues=False)

    def resume(self, journal: Path) -> AsyncGeneration:
        """Go on with a journaled generation: the same tokens that it would have had. Raises: BadArgument."""
        loaded = Journal.load(journal)
        if loaded.release != self.release.infohash:
            loaded.close()
            raise BadArgument(f"{journal} belongs to release {loaded.release}, not to {self.release.infohash}")
        return self._begin(loaded)

    async def generate(
        self, prompt: Prompt, params: SamplingParams | None = None, *, grammar: Grammar | None = None
    ) -> Generation:
        """The whole answer at once. Cancelling the awaiting task cancels the generation on every stage."""
        return await _drain(self.stream(prompt, params, grammar=grammar))

    async def chat(
        self, messages: Sequence[Message], params: SamplingParams | None = None, *,
        tools: Sequence[Message] = (), grammar: Grammar | None = None,
    ) -> Generation:  # fmt: skip
        return await _drain(self.stream_chat(messages, params, tools=tools, grammar=grammar))

    async def status(self) -> SwarmStatus:
        """Ask around now, and tell what the swarm looks like."""
        await self._discovery.refresh()
        if not self._discovery.nodes():  # that round may have begun before the DHT knew anybody
            await self._discovery.refresh()
        release, nodes = self.release, self._discovery.nodes()
        n_layers, now_s = release.args.n_layers, time.time()
        hosts, experts = (
            coverage(nodes, n_layers, now_s),
            expert_coverage(nodes, n_layers, release.args.n_experts, now_s),
        )
        return SwarmStatus(release.name, release.infohash, n_layers, nodes, hosts, experts)

    # -- joining -------------------------------------------------------------------------------------------------

    async def _fetch_release(self) -> ClientRelease:
        """The small files, by BitTorrent. Nodes that discovery finds are asked for them as well: they keep seeding."""
        download = await self._torrent.add(self.magnet, self._dir, peers=self.magnet.peers)
        introducing = asyncio.create_task(self._introduce(download))
        try:
            torrent = await fetch_metadata(download, self.magnet, self.timeout_s)
            async with asyncio.timeout(self.timeout_s):
                release = await fetch_client_release(download, torrent, self._admission)
        except TimeoutError:
            raise MetadataTimeout(
                f"the release's config and tokenizer did not arrive within {self.timeout_s:g} s. Tried "
                f"{download.describe_attempts()}. Name a peer that has them (x.pe=HOST:PORT in the magnet link)"
            ) from None
        finally:
            introducing.cancel()
            await asyncio.gather(introducing, return_exceptions=True)
        with contextlib.suppress(TransferError):  # without the record the next client only hashes what is here
            await download.save_resume()
        return release

    async def _introduce(self, download: Download) -> None:
        """Tell the torrent of the nodes that are found, until it has what it wants."""
        while True:
            await self._discovery.refresh()
            download.add_peers(self._discovery.torrent_peers())
            await asyncio.sleep(1.0)

    def _encode(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            return self._tokenizer("text").encode(prompt, bos=True)
        ids = list(prompt)
        vocab_size = self.release.args.vocab_size
        if any(isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < vocab_size for i in ids):
            raise BadArgument(f"token ids must be whole numbers from 0 to {vocab_size - 1}")
        return ids

    def _tokenizer(self, what: str) -> Tokenizer:
        if self.release.tokenizer is None:
            raise BadArgument(f"{self.release.name} ships no tokenizer, so {what} cannot be encoded; pass token ids")
        return self.release.tokenizer

    def _begin_new(
        self, ids: Sequence[int], params: SamplingParams | None, journal: Path | None, grammar: Grammar | None, *,
        continues: bool, on_behalf_of: str = "",
    ) -> AsyncGeneration:  # fmt: skip
        check_context(len(ids), self.release)  # before a journal file exists
        params = params or SamplingParams()
        return self._begin(
            Journal.create(self.release.infohash, ids, params, journal, continues=continues, grammar=grammar),
            on_behalf_of,
        )

    def _begin(self, journal: Journal, on_behalf_of: str = "") -> AsyncGeneration:
        if self._finder is None:
            raise BadArgument("the client is not connected; use it in a `with` statement")
        page_secret = blake2b(on_behalf_of.encode(), key=self._page_secret).digest()
        return AsyncGeneration(
            TokenLoop(self.release, self._dialer, self._client_id, self._finder, journal, self._compiler, page_secret)
        )


def connect_async(
    magnet: str, *, bootstrap: Sequence[str] = (), peers: Sequence[str] = (), network: str | None = None,
    data_dir: Path | None = None, timeout_s: float = 60.0, publishers: Sequence[str] = (),
    for_batches: bool = False,
) -> AsyncClient:  # fmt: skip
    """A client of the release that magnet names; enter it with `async with`.

    bootstrap: "host:port" of DHT nodes to begin with. peers: "host:port" of nodes to ask without any DHT.
    network: 'loopback', 'lan' or 'wan' (default: the environment's SWARM_NETWORK, else 'wan').
    data_dir: where the release's small files are kept between runs. timeout_s: the longest wait for others.
    publishers: ids of keys, one of which must have signed the release; empty: anybody's, or nobody's.
    for_batches: routes through which most tokens go, for many generations at once, rather than those of the least wait.
    Raises: MagnetError, BadArgument; on entering: TransferError, ReleaseError.
    """
    return AsyncClient(
        magnet, bootstrap=bootstrap, peers=peers, network=network, data_dir=data_dir, timeout_s=timeout_s,
        publishers=publishers, for_batches=for_batches,
    )  # fmt: skip


async def _drain(generation: AsyncGeneration) -> Generation:
    async with generation:
        async for _ in generation:
            pass
    return generation.result
