"""One libtorrent session on an asyncio loop: its port, its torrents and its DHT."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import libtorrent as lt

from swarm.errors import BadArgument, LocalProtocolError, SwarmError, TransferError
from swarm.terms import Address, Infohash
from swarm.torrent.attempts import Attempts
from swarm.torrent.background import Background
from swarm.torrent.config import TorrentConfig
from swarm.torrent.download import Download
from swarm.torrent.engine import Listening, kinds_of_sockets, make_engine
from swarm.torrent.holes import punch
from swarm.torrent.http_pieces import read_missing
from swarm.torrent.joining import prepare_to_join
from swarm.torrent.local import check_sizes, differs, make_folder
from swarm.torrent.lonely import Loneliness
from swarm.torrent.magnet import Magnet
from swarm.torrent.mapping import PortMapping, PortMappings
from swarm.torrent.metainfo import Torrent
from swarm.torrent.pump import AlertPump
from swarm.torrent.rates import rates_now
from swarm.torrent.reach import allows_url, fix_port, resolve
from swarm.torrent.rendezvous import Rendezvous
from swarm.torrent.resume import dropped_params, resume_path, starting_params
from swarm.torrent.sharing import FolderLock, FollowedTransfer, Keeper
from swarm.torrent.transfer import Transfer
from swarm.torrent.trimming import Trimmer
from swarm.torrent.web_seeds import WebSeedRenewal

_TICK_S = 0.25
_SAVE_EVERY_S = 15.0


class TorrentSession:
    """A BitTorrent peer and DHT node. `async with TorrentSession(config) as session:` starts and closes it.

    Lives on the event loop that started it; no method may be called from another thread.
    """

    def __init__(self, config: TorrentConfig) -> None:
        self.config = config
        self._session: Any = None
        self._pump: AlertPump | None = None
        self._rendezvous: Rendezvous | None = None
        self.rates = (config.upload_rate, config.download_rate)  # bytes/s in force, up and down
        self._port = 0
        self._listening = Listening()
        self._downloads: dict[Any, Download] = {}
        self._lonely: dict[Any, Loneliness] = {}
        self._keepers: dict[Download, Keeper] = {}
        self._followed: set[Download] = set()  # fetched by another process of this machine
        self._mappings = PortMappings()
        self._adding = asyncio.Lock()
        self._trimmer = Trimmer(self.drop)
        self._background = Background()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def port(self) -> int:
        """The port listened on, for BitTorrent over TCP and the DHT over UDP."""
        return self._port

    async def start(self) -> None:
        """Bind the port and start. Raises: ListenError when the address is taken or not ours."""
        if self._session is not None:
            raise LocalProtocolError("this torrent session has been started already")
        listen = fix_port(self.config.listen)
        self._session = make_engine(self.config, listen)
        self._rendezvous = Rendezvous(self._session, self.config.settle_s)
        self._pump = AlertPump(self._session, self._on_alerts)
        try:
            self._port = await self._listening.port(listen, kinds_of_sockets(self.config))
        except BaseException:
            await self.close()
            raise
        self._background.spawn(self._keep_up())
        self._background.spawn(self._meet_dht())

    async def close(self) -> None:
        """Record what was fetched, say good-bye to peers and trackers, and free the port."""
        if self._session is None or self._pump is None:
            return
        await self._background.end()
        await asyncio.gather(*(download.try_save_resume() for download in self._downloads.values()))
        for download in (*self._downloads.values(), *self._followed):
            download.transfer.close(TransferError("the torrent session was closed; start it again to go on"))
            if isinstance(download.transfer, FollowedTransfer):
                download.transfer.end()
        self._pump.stop()
        self._pump = self._rendezvous = None
        self._downloads.clear()
        self._lonely.clear()
        self._mappings.clear()
        self._port = 0
        holder = [self._session]
        self._session = None
        keepers, self._keepers = self._keepers, {}
        self._followed.clear()
        await asyncio.to_thread(holder.clear)  # the destructor waits until the trackers have heard that we leave
        for keeper in keepers.values():
            keeper.release()  # after the last byte was written

    async def add(self, source: Magnet | Torrent, save_dir: Path, *, peers: Iterable[Address] = ()) -> Download:
        """Join a torrent. Nothing is requested until the Download is asked for it.

        What an earlier session fetched into save_dir is taken up from the resume file there, or found by hashing.
        Adding it again to the same save_dir returns the same Download. While another process of this machine fetches it
        into save_dir, this one asks that one for its pieces and fetches none. Raises: BadArgument.
        """
        self._running()
        magnet = source if isinstance(source, Magnet) else source.magnet()
        save_dir = await asyncio.to_thread(make_folder, save_dir)
        async with self._adding:
            download = self._find(magnet.infohash, save_dir)
            if download is None:
                torrent = source if isinstance(source, Torrent) else None
                lock = FolderLock.take(save_dir, magnet.infohash)
                if lock is None:
                    download = self._follow(magnet, torrent, save_dir)
                else:
                    download = await self._continue(magnet, torrent, save_dir)
                    self._keepers[download] = Keeper(lock, save_dir, magnet.infohash)
        await self._dial_now(download, (*magnet.peers, *peers))
        return download

    async def _continue(self, magnet: Magnet, torrent: Torrent | None, save_dir: Path) -> Download:
        """Join, with what an earlier session left in save_dir."""
        params, torrent = await asyncio.to_thread(starting_params, magnet, torrent, save_dir)
        file = resume_path(save_dir, magnet.infohash)
        return self._admit(params, magnet, torrent, save_dir, resume_file=file)

    def _follow(self, magnet: Magnet, torrent: Torrent | None, save_dir: Path) -> Download:
        transfer = FollowedTransfer(save_dir, magnet.infohash, torrent, Attempts(self.describe_dht))
        download = Download(transfer, magnet, save_dir, resume_file=None, dial=self._dial)
        self._followed.add(download)
        return download

    async def seed(self, torrent: Torrent, parent_dir: Path, *, verified: bool = False) -> Download:
        """Offer a complete local file or folder that lies in parent_dir under the torrent's name. Never writes to it.

        verified: the caller has just hashed it: trust it now, and hash each piece when it is first asked for.
        Raises: VerificationError, naming the files that are missing or differ.
        """
        self._running()
        parent_dir = await asyncio.to_thread(check_sizes, torrent, parent_dir)
        params = lt.load_torrent_buffer(torrent.data)
        async with self._adding:
            if self._find(torrent.infohash, parent_dir) is not None:
                raise LocalProtocolError(f"torrent {torrent.infohash} is part of this session already")
            # In upload mode nothing is ever fetched, so nothing is ever written.
            flags = lt.torrent_flags.upload_mode | (lt.torrent_flags.seed_mode if verified else 0)
            download = self._admit(params, torrent.magnet(), torrent, parent_dir, extra_flags=flags)
        await download.checked()
        if missing := [piece for piece in range(torrent.n_pieces) if not download.has(piece)]:
            self._forget(download)
            raise differs(torrent, parent_dir, missing)
        return download

    async def make_room(self, download: Download, pieces: Iterable[int], disk_bytes: int) -> None:
        """From now on these pieces are hosted here, and the torrent takes disk_bytes at most on disk (0: unbounded).

        Whenever what the folder's processes host changes, other pieces are given up, those that most peers have first.
        Their tightest bound counts. Raises: BadArgument where `pieces` and what the others host do not fit.
        """
        self._running()
        await download.checked()
        if isinstance(download.transfer, FollowedTransfer):
            download.transfer.host(set(pieces), disk_bytes)
        elif (keeper := self._keepers.get(download)) is not None:
            self._trimmer.host(download, keeper, set(pieces), disk_bytes)
            await self._trimmer.trim(download, keeper)
        download.hosted, download.disk_bytes = set(pieces), disk_bytes

    async def drop(self, download: Download, pieces: Iterable[int]) -> None:
        """Give up verified pieces that nobody here wants, and the room that they take on disk.

        Peers are dialled again. Does nothing where another process of this machine fetches the torrent.
        Raises: BadArgument where files cannot have holes; TransferError.
        """
        self._running()
        transfer, torrent = download.transfer, download.torrent
        dropped = {piece for piece in pieces if piece in transfer.have and piece not in transfer.wanted}
        if not dropped or isinstance(transfer, FollowedTransfer):
            return
        resume_data = await transfer.start_save()
        async with self._adding:
            if (keeper := self._keepers.get(download)) is not None:
                dropped -= keeper.withdraw(transfer, dropped).keys()
            wanted = dict(transfer.wanted)
            del self._downloads[transfer.handle]
            self._session.remove_torrent(transfer.handle)
            try:
                await asyncio.to_thread(punch, torrent, download.save_dir, dropped)
            finally:
                params = dropped_params(resume_data, torrent, transfer.have - dropped)
                file = resume_path(download.save_dir, download.infohash)
                made = self._admit(params, download.magnet, torrent, download.save_dir, resume_file=file)
                self._downloads[made.transfer.handle] = download
                download.take_over(made.transfer, file)
        self._dial(download, (*download.peers, *download.magnet.peers))
        await download.checked()
        download.transfer.want(wanted)
        await download.save_resume()

    def map_port(self, port: int) -> PortMapping:
        """Ask the router to forward this TCP port to this machine, where the config allows that."""
        self._running()
        return self._mappings.add(self._session, port)

    async def dht_announce(self, key: bytes, port: int, *, timeout_s: float = 5.0) -> bool:
        """Store this host's address with `port` under a 20-byte key. False when no DHT node was known in time."""
        rendezvous = self._running()
        return await rendezvous.announce(key, port, timeout_s) if self.config.dht else False

    async def dht_look_up(self, key: bytes, timeout_s: float) -> set[Address]:
        """The addresses announced under a 20-byte key; the empty set when none was found within timeout_s."""
        rendezvous = self._running()
        return await rendezvous.look_up(key, timeout_s) if self.config.dht else set()

    # --- alerts

    def _on_alerts(self, alerts: list[Any]) -> None:
        touched: set[Download] = set()
        for alert in alerts:
            if isinstance(alert, lt.torrent_alert):
                if (download := self._downloads.get(alert.handle)) is not None:
                    download.transfer.on_alert(alert)
                    touched.add(download)
            elif isinstance(alert, lt.state_update_alert):
                for status in alert.status:
                    if (download := self._downloads.get(status.handle)) is not None:
                        download.transfer.on_status(status)
                        touched.add(download)
            else:
                self._take(alert)
        for download in touched:
            download.transfer.wake()

    def _take(self, alert: Any) -> None:
        if self._listening.on_alert(alert) or self._mappings.on_alert(alert) or self._rendezvous is None:
            return
        if isinstance(alert, lt.dht_get_peers_reply_alert):
            self._rendezvous.on_peers(alert)
        elif isinstance(alert, lt.dht_stats_alert) and self._rendezvous.on_stats(alert):
            for handle in self._downloads:
                handle.force_dht_announce()

    # --- the background

    async def _keep_up(self) -> None:
        """Poll statuses, keep the DHT alive, look for peers where there are none, record progress."""
        n_ticks, save_at_s = 0, time.monotonic() + _SAVE_EVERY_S
        while True:
            await asyncio.sleep(_TICK_S)
            n_ticks += 1
            if self.config.dht and self._rendezvous is not None and n_ticks % 4 == 1:
                self._rendezvous.tick()
            now_s = time.monotonic()
            if (rates := rates_now(self.config)) != self.rates:
                self.rates = rates
                self._session.apply_settings({"upload_rate_limit": rates[0], "download_rate_limit": rates[1]})
            await self._share()
            for handle, download in self._downloads.items():
                if download.transfer.failure is None:
                    handle.post_status(0)
                    if self._lonely.setdefault(handle, Loneliness()).is_due(now_s, download.transfer.is_lonely):
                        if self.config.dht:
                            handle.force_dht_announce()
                        self._dial(download, tuple(download.peers))
                    if download.transfer.renew_web_seeds(now_s) and self.config.proxy is None:
                        self._background.spawn(read_missing(download.transfer, partial(allows_url, self.config)))
            if now_s >= save_at_s:
                await asyncio.gather(*(download.try_save_resume() for download in self._downloads.values()))
                save_at_s = time.monotonic() + _SAVE_EVERY_S

    async def _share(self) -> None:
        """Tell other processes what is here, want what they want, and take over where a keeper has gone."""
        for download, keeper in self._keepers.items():
            if download.transfer.failure is not None or download.transfer.handle not in self._downloads:
                continue  # closed, or between two handles: drop() puts it back
            demand = keeper.sync(download.transfer, download.disk_bytes)
            if demand.wanted or demand.released:
                self._background.spawn(self._trimmer.meet(download, keeper, demand))
        for download in tuple(self._followed):
            magnet, followed = download.magnet, download.transfer
            assert isinstance(followed, FollowedTransfer)
            followed.poll()
            if (lock := FolderLock.take(download.save_dir, magnet.infohash)) is None:
                continue
            async with self._adding:
                self._followed.remove(download)
                try:
                    made = await self._continue(magnet, followed.torrent, download.save_dir)
                    self._keepers[download] = Keeper(lock, download.save_dir, magnet.infohash)
                except (SwarmError, OSError) as error:  # told to who waits; the session's other torrents go on
                    lock.release()
                    followed.give_up(error)
                    continue
                self._downloads[made.transfer.handle] = download
                download.take_over(made.transfer, resume_path(download.save_dir, magnet.infohash))
            followed.end()
            self._dial(download, (*download.peers, *magnet.peers))
            if followed.wanted:
                self._background.spawn(download.want(followed.wanted))

    # --- torrents

    def _running(self) -> Rendezvous:
        if self._rendezvous is None or self._port == 0:
            raise LocalProtocolError("the torrent session is not running; use `async with TorrentSession(…)`")
        return self._rendezvous

    def _find(self, infohash: Infohash, save_dir: Path) -> Download | None:
        for download in (*self._downloads.values(), *self._followed):
            if download.infohash == infohash:
                if download.save_dir != save_dir:
                    raise BadArgument(f"torrent {infohash} is already open in {download.save_dir}; use that folder")
                return download
        return None

    def _admit(
        self, params: Any, magnet: Magnet, torrent: Torrent | None, save_dir: Path, *,
        resume_file: Path | None = None, extra_flags: int = 0,
    ) -> Download:  # fmt: skip
        attempts = Attempts(self.describe_dht)
        prepare_to_join(params, self.config, magnet, save_dir, attempts, starts_blank=torrent is None)
        params.flags |= extra_flags
        try:
            handle = self._session.add_torrent(params)
        except RuntimeError as error:
            raise BadArgument(f"torrent {magnet.infohash} cannot be added: {error}") from error
        transfer = Transfer(handle, torrent, attempts, starts_blank=torrent is None)
        transfer.renewal = WebSeedRenewal(tuple(params.url_seeds), self.config.web_seed_patience_s)
        download = Download(transfer, magnet, save_dir, resume_file=resume_file, dial=self._dial)
        self._downloads[handle] = download
        return download

    def _forget(self, download: Download) -> None:
        download.transfer.close(TransferError(f"torrent {download.infohash} was taken out of the session"))
        del self._downloads[download.transfer.handle]
        self._session.remove_torrent(download.transfer.handle)

    # --- peers

    def describe_dht(self) -> str:
        """For people: how many DHT nodes answer."""
        return "off" if not self.config.dht or self._rendezvous is None else self._rendezvous.describe(self.config)

    def _dial(self, download: Download, addresses: Iterable[Address]) -> None:
        self._running()
        self._background.spawn(self._dial_now(download, tuple(addresses)))

    async def _dial_now(self, download: Download, addresses: tuple[Address, ...]) -> None:
        endpoints: list[tuple[str, int]] = []
        for address in addresses:
            resolved, fault = await resolve(self.config, address)
            if fault is not None:
                download.transfer.attempts.peer(str(address), fault)
                continue
            if address not in download.peers:
                download.peers[address] = None
                download.transfer.attempts.peer(str(address), "dialled, no answer yet")
            endpoints += resolved
        if self._rendezvous is None or download.transfer.failure is not None:
            return
        # A peer of ours listens for the DHT on the same port number; followers meet there too.
        if self.config.dht:
            self._rendezvous.add_nodes(endpoints)
        for endpoint in endpoints if download not in self._followed else ():
            download.transfer.handle.connect_peer(endpoint)

    async def _meet_dht(self) -> None:
        """On loopback, ask around from the configured nodes: libtorrent bootstraps from none on this machine."""
        if self.config.loopback_only and self.config.dht and self._rendezvous is not None:
            found = [await resolve(self.config, address) for address in self.config.dht_bootstrap]
            self._rendezvous.add_nodes([endpoint for resolved, _ in found for endpoint in resolved])
