"""Attention over pages on a GPU, against torch's over the same keys and values at once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from node.model.ops.parts import Session
from swarm.pages import PAGE


@pytest.mark.parametrize(
    ("n_splits", "window", "n_rows", "position"),
    [
        (1, None, 1, 0),
        (8, None, 1, 0),
        (8, 70, 1, PAGE + 70),
        (1, None, 5, PAGE - 2),
        (4, 70, 5, PAGE - 2),
        (1, 70, 30, 240),
        (4, None, 30, 240),
    ],
)
@pytest.mark.parametrize(("n_heads", "n_kv_heads", "head_dim"), [(4, 2, 32), (6, 1, 48)])
def test_attention_is_what_torch_makes_of_it(
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
    n_splits: int,
    window: int | None,
    n_rows: int,
    position: int,
    n_heads: int,
    n_kv_heads: int,
    head_dim: int,
) -> None:
    from node.model.ops.gpu import attention

    monkeypatch.setattr(attention, "_n_splits", lambda *_: n_splits)
    n_keys = position + n_rows
    xq = torch.randn(n_rows, n_heads, head_dim).bfloat16() * head_dim**-0.5
    keys, values = torch.randn(2, n_kv_heads, n_keys, head_dim).bfloat16()
    pages = [torch.zeros(2, 2, n_kv_heads, PAGE, head_dim).bfloat16() for _ in range(-(-n_keys // PAGE))]
    for nth, page in enumerate(pages):
        of_page = slice(nth * PAGE, (nth + 1) * PAGE)
        page[1, 0, :, : keys[:, of_page].shape[1]] = keys[:, of_page]
        page[1, 1, :, : keys[:, of_page].shape[1]] = values[:, of_page]
    first = 0 if window is None else max(0, position - window + 1) // PAGE
    on_device = [page.to(device) for page in pages[first:]]
    rotations = torch.ones(n_keys, 1, head_dim // 2, dtype=torch.complex64, device=device)
    own, theirs = torch.arange(position, n_keys)[:, None], torch.arange(n_keys)[None]
    mask = (theirs <= own) & (theirs > own - (window or n_keys))
    expected = F.scaled_dot_product_attention(
        xq.float().transpose(0, 1)[None], keys.float()[None], values.float()[None], mask, scale=1.0, enable_gqa=True
    )[0].transpose(0, 1)
    session = Session(n_rows, position, window, first, on_device)
    for is_row_by_row in (False, True):
        rows = attention.Rows([session], rotations, n_heads // n_kv_heads, is_row_by_row=is_row_by_row)
        got = attention.attend(xq.to(device), rows, n_kv_heads, 1).float().cpu().view_as(expected)
        assert float((got - expected).norm() / expected.norm()) < 8e-3
