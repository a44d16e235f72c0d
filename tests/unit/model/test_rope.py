from __future__ import annotations

import math

import pytest
import torch

from node.model.rope import RopeTable, halves_to_interleaved, rotate
from node.weights.writers import to_halves


def test_each_pair_turns_by_position_times_its_own_frequency() -> None:
    head_dim, theta, position = 8, 1e4, 37
    x = torch.randn(1, 2, head_dim)
    turned = rotate(x, RopeTable(head_dim, theta, "cpu").rotations(position, 1))
    for head in range(2):
        for pair in range(head_dim // 2):
            angle = position * theta ** (-2 * pair / head_dim)
            a, b = x[0, head, 2 * pair].item(), x[0, head, 2 * pair + 1].item()
            expected = (a * math.cos(angle) - b * math.sin(angle), a * math.sin(angle) + b * math.cos(angle))
            got = turned[0, head, 2 * pair : 2 * pair + 2]
            torch.testing.assert_close(got, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_a_score_depends_on_the_distance_only() -> None:
    table = RopeTable(16, 1e4, "cpu")
    q, k = torch.randn(1, 1, 16), torch.randn(1, 1, 16)

    def score(q_position: int, k_position: int) -> float:
        return (rotate(q, table.rotations(q_position, 1)) * rotate(k, table.rotations(k_position, 1))).sum().item()

    assert abs(score(5, 2) - score(105, 102)) < 1e-4
    assert abs(score(5, 2) - score(5, 3)) > 1e-3


def test_position_zero_changes_nothing() -> None:
    x = torch.randn(1, 3, 16)
    assert torch.equal(rotate(x, RopeTable(16, 1e6, "cpu").rotations(0, 1)), x)


def test_a_rotation_has_the_same_bits_however_the_table_grew() -> None:
    grown = RopeTable(128, 1e6, "cpu")
    grown.rotations(0, 1)
    grown.rotations(3000, 5)
    fresh = RopeTable(128, 1e6, "cpu")
    assert torch.equal(grown.rotations(4999, 1), fresh.rotations(0, 5000)[-1:])


def test_the_two_stored_layouts_are_each_others_inverse() -> None:
    weight = torch.randn(3 * 10, 7)
    halves = to_halves("layers.0.attention.wq.weight", weight, 10)
    assert torch.equal(halves_to_interleaved(halves, 10), weight)
    assert torch.equal(halves[1], weight[2])  # pair 1's first value
    assert torch.equal(halves[5 + 1], weight[3])  # and its second


@pytest.mark.parametrize(("n_heads", "head_dim"), [(32, 128), (40, 80)])
def test_a_row_has_the_same_bits_however_many_stand_beside_it_and_on_any_number_of_threads(
    n_heads: int, head_dim: int
) -> None:
    rotations = RopeTable(head_dim, 1e6, "cpu").rotations(37, 77)
    x = torch.randn(77, n_heads, head_dim, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([rotate(x[i : i + 1], rotations[i : i + 1]) for i in range(77)])
    before = torch.get_num_threads()
    try:
        for n_threads in (1, 2, 3, 5):  # what 3 and 5 share out falls into the middle of a head
            torch.set_num_threads(n_threads)
            assert torch.equal(rotate(x, rotations), alone), n_threads
    finally:
        torch.set_num_threads(before)
