"""A batch that never ends: whoever waits behind it is told, and not before its time."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from node.stage import scheduler
from node.stage.pulse import CEILING_S, FACTOR, FLOOR_S, Pulse
from node.stage.scheduler import BatchConfig, ComputeThread, Slice
from swarm.errors import DeadlineExceeded


@dataclass
class Clock:
    now_s: float = 1024.0

    def __call__(self) -> float:
        return self.now_s


def test_the_bound_grows_with_what_batches_took() -> None:
    clock = Clock()
    pulse = Pulse(clock)

    def seconds_until_stuck(n_rows: int) -> int:
        pulse.began(n_rows)
        for seconds in range(1, 1000):
            clock.now_s += 1.0
            try:
                pulse.check()
            except DeadlineExceeded:
                return seconds
        raise AssertionError("never")

    def take(n_rows: int, seconds: float) -> None:
        pulse.began(n_rows)
        clock.now_s += seconds
        pulse.check()
        pulse.ended()

    pulse.check()
    assert seconds_until_stuck(8) == CEILING_S + 1, "nothing is known of it yet"
    pulse = Pulse(clock)
    take(1, 0.25)
    assert seconds_until_stuck(1) == FLOOR_S + 1
    assert seconds_until_stuck(20) == FACTOR * 5.0 + 1
    assert seconds_until_stuck(10_000) == CEILING_S + 1


async def test_a_step_behind_a_stuck_batch_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "WATCH_S", 0.01)
    clock, stuck, let_go = Clock(), threading.Event(), threading.Event()

    def compute(slices: list[Slice]) -> None:
        clock.now_s += 0.25
        if any(part.job.work == "hangs" for part in slices):
            stuck.set()
            clock.now_s += FLOOR_S + 1.0
            let_go.wait(30.0)

    thread = ComputeThread(compute, BatchConfig(), Pulse(clock))
    try:
        await thread.run("a", "group", 1, "works")
        with pytest.raises(DeadlineExceeded, match="restart it"):
            await thread.run("a", "group", 1, "hangs")
        assert stuck.is_set()
        with pytest.raises(DeadlineExceeded):
            await thread.run("b", "group", 1, "waits behind it")
    finally:
        let_go.set()
        thread.close()
