"""Which errors say that there is no memory."""

from __future__ import annotations

import pytest
import torch

from node.model import is_out_of_memory


def test_the_cpus_allocator_says_what_is_looked_for() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "Triton Error [CUDA]: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_so_do_those_who_take_a_gpus_memory_beside_torchs_allocator(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))


def test_other_errors_are_others() -> None:
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(ValueError("out of memory"))
