"""Memory for packed weights: on huge pages, nobody's twice, and given back."""

from __future__ import annotations

import mmap

import pytest
import torch

from node.model.ops.native.room import Room

HUGE = 2 << 20
STRETCH = 64 << 20


def test_what_is_taken_lies_side_by_side_from_a_huge_page_on() -> None:
    room = Room()
    first, second, third = room.take(100), room.take(64), room.take(3 << 20)
    assert first.data_ptr() % HUGE == 0
    assert second.data_ptr() == first.data_ptr() + 128
    assert third.data_ptr() == second.data_ptr() + 64
    for taken, value in ((first, 1), (second, 2), (third, 3)):
        assert not taken.any()
        taken.fill_(value)
    assert (first == 1).all() and (second == 2).all() and (third == 3).all()


@pytest.mark.parametrize("n_bytes", [STRETCH, STRETCH + 1, 3 * STRETCH])
def test_what_fills_a_stretch_begins_one(n_bytes: int) -> None:
    room = Room()
    small = room.take(64)
    large, after = room.take(n_bytes), room.take(64)
    large[-1] = 7
    assert large.data_ptr() % HUGE == after.data_ptr() % HUGE == 0
    assert len({taken.data_ptr() for taken in (small, large, after)}) == 3


def test_a_stretch_of_which_nothing_is_left_is_given_back() -> None:
    room = Room()
    taken = [room.take(1 << 20), room.take(1 << 20)]
    stretch = room._stretch
    assert stretch is not None
    del taken[0]
    assert stretch() is not None
    taken.clear()
    assert stretch() is None
    again = room.take(64)
    assert again.data_ptr() % HUGE == 0 and not again.any()


def test_moving_to_huge_pages_changes_no_value() -> None:
    room = Room()
    taken = room.take(STRETCH - HUGE)
    stretch = room._stretch
    assert stretch is not None
    memory = stretch()
    assert memory is not None
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    taken.view(-1, 64).copy_((torch.arange(len(taken) // 64) % 251).byte()[:, None])
    memory.madvise(mmap.MADV_HUGEPAGE)
    room.take(STRETCH)  # the stretch before it is moved
    assert torch.equal(taken.view(-1, 64)[:, 17], (torch.arange(len(taken) // 64) % 251).byte())
