"""Our GPU kernels are compiled for the GPUs that volunteers have: on a machine without one, to the last instruction."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from node.hosting.budget import WARMED_ROWS
from node.model.ops import gpu
from node.model.ops.parts import Parts, Session
from swarm.pages import PAGE

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

CPU = torch.device("cpu")
DIM, HIDDEN_DIM, N_HEADS, N_KV_HEADS, HEAD_DIM, N_EXPERTS = 4096, 14336, 32, 8, 128, 8
"""Of Mixtral 8x7B."""

SHARED_KIB = {80: 163, 86: 99, 90: 227}
"""By compute capability (A100; RTX 30 and, with the same bound, 40 and 50; H100): what a program may have."""


class NoGpu:
    """What Triton asks a driver before it compiles. The capability is its device's number too: Triton remembers what it
    compiled by that.
    """

    def __init__(self, capability: int) -> None:
        from triton.backends.compiler import GPUTarget

        self._capability = capability
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return self._capability

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.fixture
def compiled(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[int, dict[str, int]]:
    """A capability, and the shared memory of each kernel that is launched from now on, which is only compiled."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    from node.model.ops.gpu import attention

    kernels: dict[str, int] = {}
    run = JITFunction.run

    def compile_only(function: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = run(function, *args, grid=grid, warmup=True, **options)
        kernels[f"{function.fn.__name__} {kernel.hash}"] = kernel.metadata.shared
        return kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(JITFunction, "run", compile_only)
    monkeypatch.setattr(attention, "n_multiprocessors", lambda device: 84)
    monkeypatch.setattr(driver, "_active", NoGpu(request.param))
    return request.param, kernels


def layer_of(quantisation: str, *, is_mixture: bool) -> Any:
    from node.model.ops.gpu.layer import Layer

    def matrix(n_out: int, n_in: int, n_matrices: int = 1, quantisation: str = quantisation) -> Any:
        return gpu.room(torch.Size((n_out, n_in)), n_matrices, quantisation, CPU)

    expert = matrix(HIDDEN_DIM, DIM, 2), matrix(DIM, HIDDEN_DIM)
    norm = torch.ones(DIM, dtype=torch.bfloat16)
    n_experts = N_EXPERTS if is_mixture else 1
    return Layer(
        Parts(
            norms=(norm, norm),
            epsilon=1e-5,
            wqkv=matrix((N_HEADS + 2 * N_KV_HEADS) * HEAD_DIM, DIM),
            wo=matrix(DIM, N_HEADS * HEAD_DIM),
            router=matrix(N_EXPERTS, DIM, quantisation="") if is_mixture else None,
            experts=[expert] * n_experts,
            n_heads=N_HEADS,
            n_kv_heads=N_KV_HEADS,
            head_dim=HEAD_DIM,
            n_experts=n_experts,
            n_chosen=2 if is_mixture else 1,
        )
    )


@pytest.mark.parametrize(
    ("compiled", "quantisation"),
    [(80, ""), (86, ""), (86, "int8"), (86, "int4"), (90, "")],
    ids=["sm_80", "sm_86", "sm_86, int8", "sm_86, int4", "sm_90"],
    indirect=["compiled"],
)
def test_they_compile_and_fit(compiled: tuple[int, dict[str, int]], quantisation: str) -> None:
    from node.model.ops.gpu.attention import Rows
    from node.model.ops.gpu.layer import run_layers
    from node.model.ops.gpu.logits import greatest

    capability, kernels = compiled
    layer, dense = layer_of(quantisation, is_mixture=True), layer_of(quantisation, is_mixture=False)
    pages = [torch.zeros(1, 2, N_KV_HEADS, PAGE, HEAD_DIM, dtype=torch.bfloat16)] * 3
    rotations = torch.ones(3 * PAGE, 1, HEAD_DIM // 2, dtype=torch.complex64)
    for n_rows in (1, *WARMED_ROWS):
        h = torch.zeros(n_rows, DIM, dtype=torch.bfloat16)
        session = Session(n_rows, 3, None, 0, pages)
        rows = Rows([session], rotations, N_HEADS // N_KV_HEADS, is_row_by_row=n_rows == 1)
        run_layers([layer, dense], h, [rows, rows], [0, 0])
    greatest(torch.zeros(1, 32000))
    assert {name.split()[0] for name in kernels} == {
        "attend", "greatest", "group", "mix", "multiply_row", "multiply_rows", "normalise", "normalise_and_route",
        "put_together", "rotate_and_write",
    }  # fmt: skip
    assert max(kernels.values()) <= SHARED_KIB[capability] << 10


@pytest.mark.parametrize("compiled", [86], ids=["sm_86"], indirect=True)
def test_other_numbers_of_rows_compile_nothing_anew(compiled: tuple[int, dict[str, int]]) -> None:
    """What a node compiled when it started serves every batch."""
    from node.model.ops.gpu.attention import Rows
    from node.model.ops.gpu.layer import run_layers

    _, kernels = compiled
    layer = layer_of("", is_mixture=True)
    pages = [torch.zeros(4, 2, N_KV_HEADS, PAGE, HEAD_DIM, dtype=torch.bfloat16)] * 3
    rotations = torch.ones(3 * PAGE, 1, HEAD_DIM // 2, dtype=torch.complex64)

    def launch(n_rows: int, nth: int, *, is_row_by_row: bool) -> None:
        h = torch.zeros(n_rows, DIM, dtype=torch.bfloat16)
        session = Session(n_rows, 5, None, 0, pages)
        rows = Rows([session], rotations, N_HEADS // N_KV_HEADS, is_row_by_row=is_row_by_row)
        run_layers([layer], h, [rows], [nth])

    for n_rows in (1, *WARMED_ROWS):
        launch(n_rows, 0, is_row_by_row=n_rows <= 64)
        launch(n_rows, 0, is_row_by_row=False)
    warmed = set(kernels)
    for n_rows in (1, 3, 4, 5, 16, 18, 31, 32, 48, 63, 64, 100, 128, 200, 256, 300, 511):
        launch(n_rows, 1, is_row_by_row=n_rows <= 64)
    assert set(kernels) == warmed
