"""The top of a row of logits, with ties in one order everywhere."""

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from node.stage import top_logits
from node.stage.top_logits import allowed_ids, best_on_device, top_allowed_logits

ROWS = st.lists(st.integers(-3, 3), min_size=1, max_size=40)


@given(ROWS, st.integers(1, 45))
def test_the_largest_first_and_equal_ones_by_id(row: list[int], n_top: int) -> None:
    (got,) = top_logits(torch.tensor([row], dtype=torch.float32), n_top)
    expected = sorted(range(len(row)), key=lambda i: (-row[i], i))[:n_top]
    assert got.ids == tuple(expected)
    assert got.logits == tuple(float(row[i]) for i in expected)
    assert math.isclose(got.log_sum_exp, math.log(sum(math.exp(v) for v in row)), abs_tol=1e-5)


@given(st.lists(ROWS, min_size=1, max_size=3), st.integers(1, 45))
def test_found_where_the_logits_are_it_is_the_same(rows: list[list[int]], n_top: int) -> None:
    """By the code that a GPU runs."""
    logits = torch.tensor([(row * 40)[:40] for row in rows], dtype=torch.float32)
    for got, expected in zip(best_on_device(logits, min(n_top, 40)), top_logits(logits, n_top), strict=True):
        assert (got.ids, got.logits) == (expected.ids, expected.logits)
        assert math.isclose(got.log_sum_exp, expected.log_sum_exp, abs_tol=1e-5)


def test_each_row_is_on_its_own() -> None:
    rows = top_logits(torch.tensor([[0.0, 1.0, 1.0], [5.0, -1.0, 5.0]]), 2)
    assert [row.ids for row in rows] == [(1, 2), (0, 2)]


def test_a_long_row_has_the_same_bits_alone_and_among_others_on_any_number_of_threads() -> None:
    logits = torch.randn(24, 131072, generator=torch.Generator().manual_seed(0)) * 3
    before = torch.get_num_threads()
    seen = set()
    try:
        for n_threads in (1, 3, 4):
            torch.set_num_threads(n_threads)
            seen.add(tuple(row.log_sum_exp for row in top_logits(logits, 1)))
            seen.add(tuple(top_logits(row, 1)[0].log_sum_exp for row in logits.split(1)))
    finally:
        torch.set_num_threads(before)
    assert len(seen) == 1


@given(st.binary(min_size=1, max_size=9), st.data())
def test_a_mask_names_its_ids_lowest_bit_first(mask: bytes, data: st.DataObject) -> None:
    vocab_size = data.draw(st.integers(1, 8 * len(mask)))
    expected = [i for i in range(vocab_size) if mask[i // 8] >> (i % 8) & 1]
    assert allowed_ids(mask, vocab_size).tolist() == expected


@given(ROWS, st.integers(1, 45), st.data())
def test_under_a_mask_no_other_ids_exist(row: list[int], n_top: int, data: st.DataObject) -> None:
    ids = sorted(data.draw(st.sets(st.sampled_from(range(len(row))), min_size=1)))
    (got,) = top_allowed_logits(torch.tensor([row], dtype=torch.float32), n_top, np.array(ids))
    assert got.ids == tuple(sorted(ids, key=lambda i: (-row[i], i))[:n_top])
    assert got.logits == tuple(float(row[i]) for i in got.ids)
    assert math.isclose(got.log_sum_exp, math.log(sum(math.exp(row[i]) for i in ids)), abs_tol=1e-5)
