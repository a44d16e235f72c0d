"""How a torrent joins libtorrent's session: flags, and only such trackers and web seeds as this session may ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import libtorrent as lt

from swarm.torrent.attempts import Attempts
from swarm.torrent.config import TorrentConfig
from swarm.torrent.magnet import Magnet
from swarm.torrent.reach import allows_url, note_sources


def prepare_to_join(
    params: Any, config: TorrentConfig, magnet: Magnet, save_dir: Path, attempts: Attempts, *, starts_blank: bool
) -> None:
    """Complete add_torrent_params, and note in attempts whom is going to be asked.

    starts_blank: nothing is known of its files yet, so nothing may be requested.
    """
    note_sources(config, magnet, attempts)
    params.trackers = [url for url in magnet.trackers if allows_url(config, url)]
    params.tracker_tiers = list(range(len(params.trackers)))
    params.url_seeds = [url for url in magnet.web_seeds if allows_url(config, url)]
    params.save_path = str(save_dir)
    flags = params.flags & ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused | lt.torrent_flags.upload_mode)
    if starts_blank:
        flags |= lt.torrent_flags.default_dont_download | lt.torrent_flags.upload_mode
    flags |= 0 if config.pex else lt.torrent_flags.disable_pex
    params.flags = flags | lt.torrent_flags.duplicate_is_error
