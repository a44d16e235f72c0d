"""What a node says while it fetches."""

from __future__ import annotations

import dataclasses

import pytest

from node.cli_events import progress_words
from node.hosting import FetchProgress

PROGRESS = FetchProgress(
    layers_loaded=2,
    layers_total=8,
    experts_loaded=0,
    experts_total=0,
    needed_bytes=390_000_000,
    planned_bytes=400_000_000,
    have_bytes=100_000_000,
    fetched_bytes=100_000_000,
    found_bytes=0,
    release_bytes=900_000_000,
    download_rate=2_000_000,
    upload_rate=500_000,
    n_peers=3,
    pieces_here=25,
    pieces_planned=100,
)
SAID = "2.00 MB/s down, 500 kB/s up, 3 peers, 2/8 layers ready"


def test_rates_peers_layers_and_the_time_left() -> None:
    assert progress_words(PROGRESS.as_event()) == f"{SAID}, 2 min 30 s left"


@pytest.mark.parametrize(
    ("changes", "left_s"),
    [({"pieces_here": 100}, 0.0), ({"download_rate": 0}, None), ({"pieces_here": 0, "pieces_planned": 0}, 0.0)],
)
def test_a_time_that_nobody_knows_is_left_out(changes: dict[str, int], left_s: float | None) -> None:
    event = dataclasses.replace(PROGRESS, **changes).as_event()
    assert event["left_s"] == left_s
    assert progress_words(event).endswith("2/8 layers ready")
