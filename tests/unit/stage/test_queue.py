"""A node's queue: what steps waited lately, forgotten when nobody comes."""

from __future__ import annotations

from node.stage.queue import RecentQueue


def test_waits_are_averaged_and_fade() -> None:
    now_s = 0.0
    queue = RecentQueue(lambda: now_s)
    assert queue.wait_s == 0.0
    for _ in range(60):
        now_s += 0.01
        queue.add(0.5)
    busy_s = queue.wait_s
    assert 0.4 < busy_s <= 0.5
    now_s += 3.0
    assert 0.3 * busy_s < queue.wait_s < 0.4 * busy_s
    now_s += 60.0
    assert queue.wait_s < 1e-6
