"""What a node says while it fetches."""

from __future__ import annotations

from typing import Any

from node.cli_events import progress_words

FIELDS: dict[str, Any] = {
    "download_rate": 2_000_000,
    "upload_rate": 500_000,
    "n_peers": 3,
    "layers_loaded": 2,
    "layers_total": 8,
    "experts_loaded": 0,
    "experts_total": 0,
    "pieces_here": 25,
    "pieces_planned": 100,
    "planned_bytes": 400_000_000,
}


def test_rates_peers_layers_and_the_time_left() -> None:
    said = "2.00 MB/s down, 500 kB/s up, 3 peers, 2/8 layers ready"
    assert progress_words(FIELDS) == f"{said}, 2 min 30 s left"
    assert progress_words({**FIELDS, "pieces_here": 100}) == said


def test_a_time_that_nobody_knows_is_left_out() -> None:
    assert progress_words({**FIELDS, "download_rate": 0}).endswith("2/8 layers ready")
