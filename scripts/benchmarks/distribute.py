"""distribute: one slow seed and many who want the release; the first layer before the last; what seeding costs.

Sources are capped by libtorrent's own rate limit, so that the network is what is measured, and not this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.server
import os
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import libtorrent as lt
import psutil
import torch

from benchmarks.fetch import WIDER
from benchmarks.figures import Figure
from benchmarks.processes import Processes
from node.weights import load_tensors, write_release
from swarm.client import connect_async
from swarm.release import pick_piece_size, read_folder_layout
from swarm.sampling import SamplingParams
from swarm.terms import Address
from swarm.torrent import Magnet, Torrent, TorrentConfig, TorrentSession, create_torrent
from swarm.torrent.engine import make_engine
from swarm.torrent.recheck import recheck

BENCH = "distribute"
DEFAULT_ROUNDS = 1
SEED_RATE = 20_000_000
RELEASE_BYTES = 96 << 20
N_NODES = (1, 2, 4, 8)
STALL_TIMEOUT_S = 60.0
SEEDING_RATE = 100_000_000


def run(work_dir: Path, n_rounds: int) -> list[Figure]:
    """One pass: most of it is waiting for a capped network, which does not scatter."""
    del n_rounds
    folder = work_dir / "origin" / "bytes"
    folder.mkdir(parents=True)
    for idx in range(4):
        (folder / f"shard-{idx}.bin").write_bytes(os.urandom(RELEASE_BYTES // 4))
    torrent = create_torrent(folder, piece_size=pick_piece_size(RELEASE_BYTES))
    seconds, figures = asyncio.run(_whole(torrent, work_dir))
    figures.append(asyncio.run(_eighths(torrent, work_dir)))
    figures += _one_source(torrent, work_dir, seconds)
    return figures + _real_nodes(work_dir)


# -- many nodes, one seed ----------------------------------------------------------------------------------------------


async def _whole(torrent: Torrent, work_dir: Path) -> tuple[dict[int, float], list[Figure]]:
    """By number of nodes, seconds until the last of them has everything; and how many copies the seed gave."""
    seconds: dict[int, float] = {}
    figures = []
    for n_nodes in N_NODES:
        wants = [range(torrent.n_pieces)] * n_nodes
        seconds[n_nodes], copies = await _distribute(torrent, work_dir, wants)
        elapsed_s, alone_s = seconds[n_nodes], seconds[N_NODES[0]]
        case = f"whole release of {RELEASE_BYTES >> 20} MiB to {n_nodes} nodes, one seed of {SEED_RATE / 1e6:.0f} MB/s"
        figures.append(Figure(BENCH, case, elapsed_s, "s", "one node", alone_s, alone_s / elapsed_s))
        figures.append(Figure(BENCH, f"copies that the seed gave to {n_nodes} nodes", copies, ""))
    return seconds, figures


async def _eighths(torrent: Torrent, work_dir: Path) -> Figure:
    wants = [range(torrent.n_pieces * k // 8, torrent.n_pieces * (k + 1) // 8) for k in range(8)]
    _, copies = await _distribute(torrent, work_dir, wants)
    return Figure(
        BENCH, "copies that the seed gave to 8 nodes of an eighth each", copies, "", "one copy", 1.0, 1 / copies
    )


async def _distribute(torrent: Torrent, work_dir: Path, wants: list[range]) -> tuple[float, float]:
    """(seconds until all have what they want, copies that the seed gave). Nodes know each other, as through facts."""
    out = work_dir / "out"
    async with AsyncExitStack() as stack:
        origin = TorrentSession(TorrentConfig.loopback(dht=False, upload_rate=SEED_RATE))
        seeder = await stack.enter_async_context(origin)
        seed = await seeder.seed(torrent, work_dir / "origin", verified=True)
        sessions = [await stack.enter_async_context(TorrentSession(TorrentConfig.loopback(dht=False))) for _ in wants]
        started_s = time.perf_counter()
        downloads = []
        for idx, session in enumerate(sessions):
            known = [Address("127.0.0.1", peer.port) for peer in (seeder, *sessions) if peer is not session]
            downloads.append(await session.add(torrent, out / str(idx), peers=known))
        for download, pieces in zip(downloads, wants, strict=True):
            await download.want(dict.fromkeys(pieces, 4))
        await asyncio.gather(
            *(d.wait_for(pieces, stall_timeout_s=STALL_TIMEOUT_S) for d, pieces in zip(downloads, wants, strict=True))
        )
        elapsed_s = time.perf_counter() - started_s
        copies = (await seed.refresh()).uploaded_bytes / torrent.total_bytes
    shutil.rmtree(out)
    return elapsed_s, copies


# -- one node, one source ----------------------------------------------------------------------------------------------


def _one_source(torrent: Torrent, work_dir: Path, seconds: dict[int, float]) -> list[Figure]:
    """One node against libtorrent's own API, and as many as can be against an HTTP origin of the seed's rate."""
    raw_s = asyncio.run(_raw(torrent, work_dir / "origin", work_dir))
    n_most = max(seconds)
    http_s = _over_http(work_dir / "origin" / torrent.name, n_most)
    alone_s, most_s = seconds[1], seconds[n_most]
    what = f"{RELEASE_BYTES >> 20} MiB from one source of {SEED_RATE / 1e6:.0f} MB/s"
    return [
        Figure(BENCH, f"{what} to 1 node", alone_s, "s", "raw libtorrent", raw_s, raw_s / alone_s),
        Figure(BENCH, f"{what} to {n_most} nodes", most_s, "s", "HTTP from one origin", http_s, http_s / most_s),
    ]


async def _raw(torrent: Torrent, seed_dir: Path, work_dir: Path) -> float:
    """Seconds for the same with the binding alone: one session, one handle, a loop that asks for its status."""
    out = work_dir / "raw"
    out.mkdir()
    async with TorrentSession(TorrentConfig.loopback(dht=False, upload_rate=SEED_RATE)) as seeder:
        await seeder.seed(torrent, seed_dir, verified=True)
        session = make_engine(TorrentConfig.loopback(dht=False), Address("127.0.0.1", 0))
        started_s = time.perf_counter()
        params = lt.load_torrent_buffer(torrent.data)
        params.save_path = str(out)
        params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
        handle = session.add_torrent(params)
        handle.connect_peer(("127.0.0.1", seeder.port))
        while not handle.status().is_seeding:
            await asyncio.sleep(0.02)
        elapsed_s = time.perf_counter() - started_s
        session.remove_torrent(handle)
        del session
    shutil.rmtree(out)
    return elapsed_s


def _over_http(folder: Path, n_clients: int) -> float:
    """Seconds until the last of n clients has read every file from one server of SEED_RATE."""
    with _origin(folder) as url:
        names = [path.name for path in folder.iterdir()]

        def read_all() -> None:
            for name in names:
                with urllib.request.urlopen(f"{url}/{name}") as reply:
                    while reply.read(1 << 20):
                        pass

        threads = [threading.Thread(target=read_all) for _ in range(n_clients)]
        started_s = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - started_s


@contextlib.contextmanager
def _origin(folder: Path) -> Iterator[str]:
    """An HTTP server of a folder's files whose connections together send SEED_RATE bytes a second."""
    turn = threading.Lock()
    free_at = [time.monotonic()]

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path = folder / Path(self.path).name
            self.send_response(200)
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            with path.open("rb") as file:
                while chunk := file.read(1 << 18):
                    with turn:
                        free_at[0] = max(free_at[0], time.monotonic()) + len(chunk) / SEED_RATE
                        wait_s = free_at[0] - time.monotonic()
                    time.sleep(max(0.0, wait_s))
                    self.wfile.write(chunk)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# -- nodes of their own processes --------------------------------------------------------------------------------------


def _real_nodes(work_dir: Path) -> list[Figure]:
    folder = work_dir / "wide"
    write_release(WIDER, folder, n_shards=4)
    torrent = create_torrent(folder, piece_size=pick_piece_size(300_000_000))
    with Processes(work_dir) as processes:
        figures = _first_token(processes, torrent, folder, work_dir)
        figures.append(asyncio.run(_seeding_cost(processes, torrent, folder, work_dir)))
    return figures + _reading(torrent, folder)


def _first_token(processes: Processes, torrent: Torrent, folder: Path, work_dir: Path) -> list[Figure]:
    """Seconds from `swarm node start` of all layers to a token through its first ones, and to its last one; and from
    its BitTorrent session's start to its last layer against libtorrent's own API and HTTP, which load nothing.

    The other node serves all layers but the first two; they exchange no pieces, for encryption parts them.
    """
    seeder, magnet = processes.seed(folder, "--bittorrent", f"upload-rate={SEED_RATE}")
    (other,) = processes.nodes(magnet, [f"2:{WIDER.n_layers}"], "bf16", 1, "--bittorrent", "encryption=required")
    started_s = time.perf_counter()
    joining = processes.join(magnet, f"0:{WIDER.n_layers}", "bf16", "--bittorrent", "encryption=off")
    joining.wait_for("started", STALL_TIMEOUT_S)
    joined_s = time.perf_counter()
    address = str(joining.wait_for("serving", STALL_TIMEOUT_S)["address"])
    first_s = asyncio.run(_one_token(magnet, folder.parent / "client", (address, str(other.address)))) - started_s
    ready = joining.wait_for("ready", 2 * STALL_TIMEOUT_S)
    ready_s = time.perf_counter()
    all_s, own_s = ready_s - started_s, ready_s - joined_s
    processes.stop(seeder, other.child, joining)
    raw_s = asyncio.run(_raw(torrent, folder.parent, work_dir))
    http_s = _over_http(folder, 1)
    what = f"{ready['planned_bytes'] / 1e6:.0f} MB from one source of {SEED_RATE / 1e6:.0f} MB/s"
    fetched = f"node's session to all layers served, {what}"
    return [
        Figure(BENCH, f"node start to first token, {what}", first_s, "s", "to all layers", all_s, all_s / first_s),
        Figure(BENCH, fetched, own_s, "s", "raw libtorrent", raw_s, raw_s / own_s),
        Figure(BENCH, fetched, own_s, "s", "HTTP from one origin", http_s, http_s / own_s),
    ]


async def _one_token(magnet: str, data_dir: Path, peers: tuple[str, ...]) -> float:
    """When the first token of the first whole route came."""
    async with connect_async(
        magnet, network="loopback", data_dir=data_dir, timeout_s=STALL_TIMEOUT_S, peers=peers
    ) as c:
        await c.generate([5, 6, 7], SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True))
    return time.perf_counter()


async def _seeding_cost(processes: Processes, torrent: Torrent, folder: Path, work_dir: Path) -> Figure:
    """CPU seconds per second of a seeding process while it gives SEEDING_RATE."""
    seeder, magnet = processes.seed(
        folder, "--bittorrent", f"upload-rate={SEEDING_RATE}", "--bittorrent", "upload-slots=8"
    )
    process = psutil.Process(seeder.pid)
    async with TorrentSession(TorrentConfig.loopback(dht=False)) as session:
        download = await session.add(Magnet.parse(magnet), work_dir / "cost")
        await download.metadata(STALL_TIMEOUT_S)
        await download.want(dict.fromkeys(range(torrent.n_pieces), 4))
        started_s, before = time.perf_counter(), process.cpu_times()
        await download.wait_for(range(torrent.n_pieces), stall_timeout_s=STALL_TIMEOUT_S)
        elapsed_s, after = time.perf_counter() - started_s, process.cpu_times()
    processes.stop(seeder)
    share = (after.user + after.system - before.user - before.system) / elapsed_s
    rate = torrent.total_bytes / 1e6 / elapsed_s
    return Figure(BENCH, f"share of a core while seeding {rate:.0f} MB/s", share, "")


def _reading(torrent: Torrent, folder: Path) -> list[Figure]:
    """MB/s of checking and of loading, against SHA-256 and plain reading of the same files, all from the page cache."""
    layout = read_folder_layout(folder)
    files = [folder / name for name in torrent.sizes]
    read_rate = _rate(torrent, lambda: [path.read_bytes() for path in files])
    sha_rate = _rate(torrent, lambda: [hashlib.sha256(path.read_bytes()).digest() for path in files])
    check_rate = _rate(torrent, lambda: recheck(torrent, folder.parent))
    tensors = {n: t for i in range(WIDER.n_layers) for n, t in layout.layer_tensors(i).items()}
    load_rate = _rate(torrent, lambda: load_tensors(tensors, folder, dtype=torch.bfloat16, device=torch.device("cpu")))
    return [
        Figure(
            BENCH, "checking what is on disk (SHA-1)", check_rate, "MB/s", "sha256", sha_rate, check_rate / sha_rate
        ),
        Figure(BENCH, "loading layers in bf16", load_rate, "MB/s", "read()", read_rate, load_rate / read_rate),
    ]


def _rate(torrent: Torrent, work: Callable[[], object]) -> float:
    """The better of two, so that the page cache is warm."""
    seconds = []
    for _ in range(2):
        started_s = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started_s)
    return torrent.total_bytes / 1e6 / min(seconds)
