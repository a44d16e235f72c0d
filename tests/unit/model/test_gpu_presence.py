"""Where our GPU kernels are absent, and what is said of it."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

from node.model.ops.gpu.presence import why_absent, why_not_run


def test_a_cpu_runs_them_only_for_tests() -> None:
    assert os.environ.get("TRITON_INTERPRET") == "1" or why_absent(torch.device("cpu")) == "the device is cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton finds the GPU that is here")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_what_triton_cannot_do_is_a_reason_and_no_error() -> None:
    """It is tried where there is no driver at all, which fails as a machine without a compiler does: in a launch."""
    why = why_not_run(torch.device("cpu"))
    assert why is not None
    assert "C compiler" in why
    assert "driver" in why
