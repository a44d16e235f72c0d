"""What a node is told: one frozen value, checked when built; and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.client.admission import Admission
from swarm.errors import BadArgument
from swarm.terms import Address, ExpertId, Profile, Span

OnEvent = Callable[[str, dict[str, Any]], None]
"""What a node tells (event name, its fields): started, metadata, provenance, listening, reach, placement, layout,
serving, progress, ready, moving, moved, sharing, draining, handing_over, stopped.
"""

DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """One node of one release.

    spans: layers to host; trunks: layers without their experts; experts: single ones. All three empty lets the node
    choose layers by its memory and by what the swarm lacks.
    profile: dtype and quantisation. exact: whether it shall promise the same bits whatever is computed beside a row;
    None: wherever this machine can.
    listen: where gRPC listens (port 0: any free one); None: on any free port, of this machine alone on the network
    loopback and else of every interface. advertise: what others dial; None: what they are seen to reach.
    network: loopback, lan or wan. threads: 0 leaves it to torch.
    relay_rate: bytes/s that it passes on for nodes that nobody can dial; 0: none.
    cache_budget_bytes: for the KV caches of all sessions; 0: a quarter of the free memory.
    memory_bytes: for weights and caches together, 0: what is free; a node that chooses its layers hosts what fits.
    disk_bytes: the most that the release may take on disk, 0: unbounded; what is hosted no longer goes first.
    torrent_settings: NAME=VALUE each, such as encryption=required; see swarm.torrent.SETTING_NAMES.
    upload_rate, download_rate: BitTorrent payload, bytes/s, 0: unbounded.
    drain_timeout_s: how long sessions may go on once the node stops, before their clients are told to go elsewhere.
    admission: whose signature and which licences the release may have.
    metadata_timeout_s, stall_timeout_s: how long nobody may give us the torrent's metadata, or any piece.
    """

    magnet: str
    data_dir: Path
    spans: tuple[Span, ...] = ()
    trunks: tuple[Span, ...] = ()
    experts: tuple[ExpertId, ...] = ()
    profile: Profile = Profile("bf16")  # noqa: RUF009  frozen
    exact: bool | None = None
    device: str = "auto"
    listen: Address | None = None
    advertise: Address | None = None
    network: str | None = None
    bootstrap: tuple[Address, ...] = ()
    peers: tuple[Address, ...] = ()
    torrent_port: int = 0
    threads: int = 0
    cache_budget_bytes: int = 0
    max_sessions: int = 64
    relay_rate: int = 4_000_000
    memory_bytes: int = 0
    disk_bytes: int = 0
    torrent_settings: tuple[str, ...] = ()
    upload_rate: int = 0
    download_rate: int = 0
    metadata_timeout_s: float = 120.0
    stall_timeout_s: float = 300.0
    drain_timeout_s: float = 30.0
    admission: Admission = Admission()  # noqa: RUF009  frozen

    @property
    def names_parts(self) -> bool:
        """Whether its owner said what it hosts."""
        return bool(self.spans or self.trunks or self.experts)

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise BadArgument(f"device {self.device!r} is unknown; choose one of {', '.join(DEVICES)}")
        if (
            min(self.threads, self.cache_budget_bytes, self.upload_rate, self.download_rate) < 0
            or min(self.memory_bytes, self.disk_bytes, self.relay_rate) < 0
            or self.max_sessions < 1
        ):
            raise BadArgument("threads, budgets and rates cannot be negative, and max_sessions is at least 1")
        if min(self.metadata_timeout_s, self.stall_timeout_s) <= 0 or self.drain_timeout_s < 0:
            raise BadArgument("timeouts must be positive")
