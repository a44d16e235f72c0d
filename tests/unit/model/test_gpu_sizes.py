"""Tiles of the least and the largest heads, and of the largest products, compiled: they fit a GPU's shared memory."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from node.model.on_gpu import MAX_HEAD_DIM, MAX_HEADS_TOGETHER

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed"),
    pytest.mark.timeout(600),
]

KB = 1024
GPUS = {
    "sm_89": ("cuda", 89, 32, 99 * KB),
    "gfx942": ("hip", "gfx942", 64, 64 * KB),
}
"""What people have at home, and an AMD. Backend, architecture, warp, shared bytes."""


@pytest.fixture(params=GPUS)
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """(kernel, constants, its pointers' types, its numbers, options) -> bytes of shared memory, for the GPU's room."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    backend, architecture, warp, room = GPUS[request.param]
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch.version, "hip", "6.4" if backend == "hip" else None)

    def to_bytes(kernel: Any, constants: dict[str, Any], types: dict[str, str], **options: Any) -> None:
        names = kernel.arg_names
        aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if types.get(name, "")[:1] == "*"}
        aligned |= {(names.index(name),): [["tt.divisibility", 16]] for name in ("n_in", "x_stride") if name in names}
        signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
        source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=aligned)
        target = GPUTarget(backend, architecture, warp)
        made = compile(source, target=target, options=options | {"enable_fp_fusion": True})
        assert made.metadata.shared <= room

    return to_bytes


@pytest.mark.parametrize(("element", "n_matrices"), [(16, 1), (16, 2), (4, 2)])
def test_products(compiled: Any, element: int, n_matrices: int) -> None:
    from node.model.ops.gpu.product_kernels import multiply_rows
    from node.model.ops.gpu.products import tile_blocks

    bm, bn, bk, n_warps, n_stages = tile_blocks(element, n_matrices, 128)
    constants = {"ELEMENT": element, "N_MATRICES": n_matrices, "HAS_EXPERTS": True, "X_PER_PAIR": n_matrices == 1}
    constants |= {"HAS_RESIDUAL": False, "BM": bm, "BN": bn, "BK": bk}
    types = dict.fromkeys(("x", "residual", "out"), "*bf16") | dict.fromkeys(("table", "scale_table"), "*i64")
    types |= dict.fromkeys(("order", "starts"), "*i32")
    compiled(multiply_rows, constants, types, num_warps=n_warps, num_stages=n_stages)


@pytest.mark.parametrize(
    ("group", "head_dim", "is_split"),
    [(4, 8, True), (MAX_HEADS_TOGETHER, MAX_HEAD_DIM, False)],
)
def test_attention(compiled: Any, group: int, head_dim: int, is_split: bool) -> None:
    from node.model.ops.gpu.attention import padded_head
    from node.model.ops.gpu.attention_kernels import attend

    constants = {"GROUP": group, "HEAD_DIM": head_dim, "HD": padded_head(head_dim), "PAGE": 256, "BM": 64, "BN": 64}
    constants |= {"IS_SPLIT": is_split, "HAS_WINDOW": True}
    types = dict.fromkeys(("tile_rows", "tile_sizes", "tables", "positions", "pages"), "*i64")
    types |= {"xq": "*bf16", "out": "*bf16"}
    types |= dict.fromkeys(("part_sums", "part_maxima", "part_totals"), "*fp32" if is_split else "*bf16")
    compiled(attend, constants, types, num_warps=4, num_stages=3)
