"""Verified bytes by BitTorrent: make a torrent, name it by magnet link, fetch exactly the pieces wanted, seed, and use
the DHT as a meeting place. The only room that imports libtorrent. It knows files, pieces and peers; it does NOT know
what a tensor, a layer or a node is, which pieces are worth having, or who may be trusted beyond the hashes.
"""

from swarm.torrent.config import PUBLIC_DHT, TorrentConfig
from swarm.torrent.download import Download
from swarm.torrent.magnet import Magnet
from swarm.torrent.mapping import Mapped, PortMapping
from swarm.torrent.metainfo import Torrent, TorrentEntry, create_torrent
from swarm.torrent.naming import is_magnet_link, magnet_of
from swarm.torrent.session import TorrentSession
from swarm.torrent.settings import SETTING_NAMES, with_settings
from swarm.torrent.transfer import TransferStatus

__all__ = [
    "PUBLIC_DHT",
    "SETTING_NAMES",
    "Download",
    "Magnet",
    "Mapped",
    "PortMapping",
    "Torrent",
    "TorrentConfig",
    "TorrentEntry",
    "TorrentSession",
    "TransferStatus",
    "create_torrent",
    "is_magnet_link",
    "magnet_of",
    "with_settings",
]
