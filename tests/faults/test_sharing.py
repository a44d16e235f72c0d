"""Several nodes of one machine and data folder: one download, which the others continue when its process is killed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

MIB = 1 << 20


def test_a_second_node_fetches_nothing_that_the_first_has_and_takes_over_when_it_is_killed(
    cli: Any, seeded: str, tmp_path: Path
) -> None:
    options = ("--dtype", "fp32", "--timeout", 30)
    first = cli.node(seeded, "shared", "--layers", "0:3", "--download-rate", 6 * MIB, *options)
    first.wait_for("layout", 60.0)
    second = cli.node(seeded, "shared", "--layers", "0:6", *options)
    here = second.wait_for("started", 60.0)
    assert here["node_id"] != first.wait_for("started", 1.0)["node_id"]
    second.wait_for("layout", 60.0)
    first.signal(signal.SIGKILL)
    ready = second.wait_for("ready", 60.0)
    assert ready["layers_loaded"] == 6
    assert ready["have_bytes"] >= ready["needed_bytes"]
    assert len(list(tmp_path.glob("shared/node/*/*.key"))) == 2
    second.signal(signal.SIGTERM)
    assert second.status() == 0
