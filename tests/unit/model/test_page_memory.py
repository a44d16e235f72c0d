"""Memory of KV pages: on huge pages, nobody's twice, zeros, and the system's again when its page is gone."""

from __future__ import annotations

import ctypes
import mmap

import pytest
import torch
from torch import Tensor

from node.model.page_memory import IS_HERE, PageMemory

pytestmark = pytest.mark.skipif(not IS_HERE, reason="this system has no huge pages")

HUGE = 2 << 20
STRETCH = 64 << 20


def resident_bytes(address: int, n_bytes: int) -> int:
    """What of it the system holds memory for."""
    libc = ctypes.CDLL(None, use_errno=True)
    pages = (ctypes.c_ubyte * (n_bytes // mmap.PAGESIZE))()
    assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(n_bytes), pages) == 0
    return sum(page & 1 for page in pages) * mmap.PAGESIZE


def test_pages_lie_side_by_side_from_a_huge_page_on() -> None:
    memory = PageMemory()
    first, second, odd = memory.take(1 << 20), memory.take(1 << 20), memory.take(5000)
    assert first.data_ptr() % HUGE == 0
    assert second.data_ptr() == first.data_ptr() + (1 << 20)
    assert len(odd) == 5000 and memory.take(1 << 20).data_ptr() % mmap.PAGESIZE == 0
    for taken, value in ((first, 1), (second, 2), (odd, 3)):
        assert not taken.any()
        taken.fill_(value)
    assert (first == 1).all() and (second == 2).all() and (odd == 3).all()


@pytest.mark.parametrize("n_bytes", [STRETCH, STRETCH + mmap.PAGESIZE])
def test_a_page_may_fill_a_stretch_and_more(n_bytes: int) -> None:
    memory = PageMemory()
    small, large, after = memory.take(4096), memory.take(n_bytes), memory.take(4096)
    large[-1] = 7
    assert large.data_ptr() % HUGE == 0
    assert not small.any() and not after.any() and large[-1] == 7


def test_a_page_that_is_gone_takes_no_memory_and_its_place_is_taken_again_as_zeros() -> None:
    memory = PageMemory()
    taken: list[Tensor] = [memory.take(HUGE).fill_(1) for _ in range(3)]
    address = taken[1].data_ptr()
    assert resident_bytes(address, HUGE) == HUGE
    view = taken[1].view(torch.bfloat16).view(2, -1)[1]
    del taken[1]
    assert view.any()  # whoever looks at a part of it keeps it
    assert resident_bytes(address, HUGE) == HUGE
    del view
    assert resident_bytes(address, HUGE) == 0
    again = memory.take(HUGE)
    assert again.data_ptr() == address and not again.any()
    assert all((other == 1).all() for other in taken)
    assert memory.take(HUGE).data_ptr() not in {address, *(other.data_ptr() for other in taken)}
