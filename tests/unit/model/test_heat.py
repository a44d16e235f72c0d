"""What a device counts of its routing, as the heat reads it."""

from __future__ import annotations

import pytest

from node.model import RoutingHeat


def test_a_device_that_counts_beyond_32_bits_begins_again() -> None:
    told = [(1 << 31) - 10, 6]
    heat = RoutingHeat(2)
    heat.watch(0, 1, lambda: list(told))
    heat.shares()
    told[0] = -(1 << 31) + 20
    for _ in range(3):
        told[0] += 30_000
        told[1] += 10_000
        (shares,) = heat.shares().values()
    assert shares == pytest.approx((0.75, 0.25), abs=0.01)


def test_what_a_device_tells_at_once_makes_what_came_before_count_less() -> None:
    told = [1_000_000, 0]
    heat = RoutingHeat(2)
    heat.watch(0, 1, lambda: list(told))
    heat.shares()
    told[1] += 1_000_000
    (shares,) = heat.shares().values()
    assert shares[1] > 0.95
